import { Configuration, TasksApi, type NewTask } from "./made/typescript-fetch";

const { BASE = "", ID = "" } = process.env;
const tasks = new TasksApi(new Configuration({ basePath: BASE, accessToken: "token" }));
console.log((await tasks.updateTask({ id: ID, taskChanges: { isCompleted: true } })).title);

// @ts-expect-error: a title is required
export const untitled: NewTask = { isCompleted: true };
