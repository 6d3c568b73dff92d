import { updateTask, type NewTask } from "./made/hey-api";
import { client } from "./made/hey-api/client.gen";
import { zNewTask, zTask, zTaskChanges } from "./made/hey-api/zod.gen";

const { BASE = "", ID = "" } = process.env;
client.setConfig({ baseUrl: BASE, auth: "token" });
const { data } = await updateTask({ path: { id: ID }, body: zTaskChanges.parse({ is_completed: true }) });
console.log(zTask.parse(data).title);
if (zNewTask.safeParse({ title: " \n" }).success) throw new Error("a blank title");

// @ts-expect-error: a title is required
export const untitled: NewTask = { is_completed: true };
