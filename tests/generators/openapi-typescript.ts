import createClient from "openapi-fetch";
import type { components, paths } from "./made/openapi-typescript";

const { BASE = "", ID = "" } = process.env;
const tasks = createClient<paths>({ baseUrl: BASE, headers: { Authorization: "Bearer token" } });
const { data } = await tasks.PATCH("/api/tasks/{id}", { params: { path: { id: ID } }, body: { is_completed: true } });
console.log(data?.title);

// @ts-expect-error: a title is required
export const untitled: components["schemas"]["NewTask"] = { is_completed: true };
