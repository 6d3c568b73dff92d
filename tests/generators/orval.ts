import { updateTask, type NewTask } from "./made/orval/client";
import { UpdateTaskBody, UpdateTaskResponse, CreateTaskBody } from "./made/orval/zod";

const { BASE = "", ID = "" } = process.env;
const { fetch } = globalThis;
globalThis.fetch = (path, options) => fetch(`${BASE}${path}`, options); // its paths begin with /
const { data } = await updateTask(ID, UpdateTaskBody.parse({ is_completed: true }), {
  headers: { Authorization: "Bearer token" },
});
console.log(UpdateTaskResponse.parse(data).title);
if (CreateTaskBody.safeParse({ title: " \n" }).success) throw new Error("a blank title");

// @ts-expect-error: a title is required
export const untitled: NewTask = { is_completed: true };
