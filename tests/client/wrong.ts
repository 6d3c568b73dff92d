/** Mistakes that the types find: each on a line of its own, with the compiler's number for it. */

import { type ApiError, connect, type NewTask, reactTo, type Task, type TaskChanges } from "./client";

const tasks = connect("http://127.0.0.1", () => "token");

// The service and the token
connect("http://127.0.0.1"); // TS2554
connect("http://127.0.0.1", () => null); // TS2322

// A new task
await tasks.create(); // TS2554
await tasks.create({ description: "Without a title." }); // TS2345
await tasks.create({ title: null }); // TS2322
await tasks.create({ title: "Water the plants", is_completed: "no" }); // TS2322
await tasks.create({ title: "Water the plants", completed: true }); // TS2561
export const task: NewTask = { title: "Water the plants", tilte: "" }; // TS2561

// A list
await tasks.all({ sort: "priority" }); // TS2322
await tasks.all({ limit: "5" }); // TS2322
await tasks.all({ page: 2 }); // TS2353
await tasks.all({ is_completed: "false" }); // TS2322
for (const task of tasks.pages()) task; // TS2488

// A change
const first: Task = await tasks.get("0f8fad5b-d9cb-469f-a165-70867728950e");
await tasks.edit(first.id, () => ({ is_completed: true })); // TS2345
await tasks.edit(first, () => ({ is_completed: null })); // TS2322
await tasks.edit(first, ({ title }) => ({ title: title.lenght })); // TS2551
export const changes: TaskChanges = { title: "Water the plants", tilte: "" }; // TS2561
await tasks.remove(); // TS2554

// An answer
first.done; // TS2339
first.description.length; // TS18047
first.updated_at = ""; // TS2540
(await tasks.all())[0].title; // TS2532

// An error
export function explain(error: ApiError): string {
  if (error.code === "NOPE") return ""; // TS2367
  if (reactTo(error) === "cry") return ""; // TS2367
  error.details["title"].join(); // TS2532
  switch (error.code) {
    case "VALIDATION_ERROR":
    case "INVALID_REQUEST":
      return error.message;
    default:
      return error.code satisfies never; // TS1360
  }
}
