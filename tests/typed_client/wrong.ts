/** Mistakes that the types find: each on a line of its own, with the compiler's number for it. */

import createClient from "openapi-fetch";
import type { components, paths } from "./taskapi";

const api = createClient<paths>({ baseUrl: "http://127.0.0.1" });
const params = { path: { id: "0f8fad5b-d9cb-469f-a165-70867728950e" } };

// A body
await api.POST("/api/tasks"); // TS2554
await api.POST("/api/tasks", { body: { description: "Without a title." } }); // TS2322
await api.POST("/api/tasks", { body: { title: null } }); // TS2322
await api.POST("/api/tasks", { body: { title: "Water the plants", is_completed: "no" } }); // TS2322
await api.PATCH("/api/tasks/{id}", { params, body: { is_completed: null } }); // TS2322
export const task: components["schemas"]["NewTask"] = { title: "Water the plants", tilte: "" }; // TS2561
export const changes: components["schemas"]["TaskChanges"] = { title: "Water the plants", tilte: "" }; // TS2561

// An address, a method, a parameter
await api.GET("/api/task", {}); // TS2345
await api.DELETE("/api/tasks", {}); // TS2345
await api.DELETE("/api/tasks/{id}"); // TS2554
await api.DELETE("/api/tasks/{id}", { params: { ...params, header: { "If-Macht": "*" } } }); // TS2353
await api.GET("/api/tasks", { params: { query: { sort: "priority" } } }); // TS2322
await api.GET("/api/tasks", { params: { query: { limit: "5" } } }); // TS2322
await api.GET("/api/tasks", { params: { query: { page: 2 } } }); // TS2353

// An answer
const { data, error } = await api.POST("/api/tasks", { body: { title: "Water the plants" } });
data.title; // TS18048
if (error) {
  error.details; // TS2339
  if (error.code === "NOPE") throw error; // TS2367
  if (error.code === "NOT_FOUND") throw error; // TS2367
  switch (error.code) {
    case "VALIDATION_ERROR":
      error.details["title"].join(); // TS2532
      break;
    case "INVALID_REQUEST":
      error.details; // TS2339
      break;
    default:
      error satisfies never; // TS1360
  }
} else {
  data.done; // TS2339
  data.description.length; // TS18047
  data.updated_at = ""; // TS2540
}
