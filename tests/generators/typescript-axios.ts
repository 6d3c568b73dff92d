import { Configuration, TasksApi, type NewTask } from "./made/typescript-axios";

const { BASE = "", ID = "" } = process.env;
const tasks = new TasksApi(new Configuration({ basePath: BASE, accessToken: "token" }));
console.log((await tasks.updateTask(ID, { is_completed: true })).data.title);

// @ts-expect-error: a title is required
export const untitled: NewTask = { is_completed: true };
