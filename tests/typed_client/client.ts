/**
 * A front end's dealings with taskapi, every request and answer typed. The types come from the service itself:
 *
 *     npx openapi-typescript http://127.0.0.1:5000/api/openapi.json -o taskapi.ts
 */

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./taskapi";

type Task = components["schemas"]["Task"];
type NewTask = components["schemas"]["NewTask"];
type TaskChanges = components["schemas"]["TaskChanges"];
type ListQuery = NonNullable<paths["/api/tasks"]["get"]["parameters"]["query"]>;
type ApiError = components["responses"][keyof components["responses"]]["content"]["application/json"];
type Answer<T> =
  | { data: T; error?: never; response: Response }
  | { data?: never; error: ApiError; response: Response };

/** What to tell the user. The compiler wants every code to have its line, and lets only VALIDATION_ERROR have details. */
function explain(error: ApiError): string {
  switch (error.code) {
    case "UNAUTHORIZED":
    case "INVALID_TOKEN":
      return "Please sign in.";
    case "TOKEN_EXPIRED":
      return "You have been away for a while: please sign in again.";
    case "VALIDATION_ERROR":
      return Object.entries(error.details)
        .map(([field, messages]) => `${field}: ${messages.join(" ")}`)
        .join("\n");
    case "NOT_FOUND":
      return "This task is gone.";
    case "INVALID_REQUEST":
      return error.error;
    case "DATABASE_ERROR":
    case "INTERNAL_ERROR":
      return "It's not you, it's us. Please try again.";
    default:
      return error satisfies never;
  }
}

/** An answer of 400 and above, thrown. */
class Refused extends Error {
  constructor(
    readonly status: number,
    readonly reason: ApiError,
  ) {
    super(explain(reason));
  }
}

/** What was asked for; throws Refused. */
function unwrap<T>({ data, error, response }: Answer<T>): T {
  if (error) throw new Refused(response.status, error);
  return data;
}

/** The version of the task in this answer, for If-Match. */
function versionOf({ response }: { response: Response }): string {
  const etag = response.headers.get("ETag");
  if (etag === null) throw new Error("Not an answer with a task.");
  return etag;
}

/** The cursor in `Link: </api/tasks?…>; rel="next"`; null on the last page. */
function nextCursor({ response }: { response: Response }): string | null {
  const next = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link") ?? "")?.[1];
  return next === undefined ? null : new URL(next, response.url).searchParams.get("cursor");
}

/** The service, as one user sees it. */
function connect(baseUrl: string, token?: string) {
  const api = createClient<paths>({ baseUrl, headers: token === undefined ? {} : { Authorization: `Bearer ${token}` } });
  const at = (id: string, version?: string) => ({
    params: { path: { id }, header: version === undefined ? {} : { "If-Match": version } },
  });
  return {
    async *pages(query: ListQuery): AsyncGenerator<Task[]> {
      for (let cursor: string | null = ""; cursor !== null; ) {
        const page: ListQuery = cursor ? { ...query, cursor } : query;
        const answer = await api.GET("/api/tasks", { params: { query: page } });
        yield unwrap(answer);
        cursor = nextCursor(answer);
      }
    },
    // A body is typed before it is handed over: openapi-fetch itself lets an unknown key pass.
    create: (body: NewTask) => api.POST("/api/tasks", { body }),
    get: (id: string) => api.GET("/api/tasks/{id}", { params: { path: { id } } }),
    change: (id: string, body: TaskChanges, version?: string) =>
      api.PUT("/api/tasks/{id}", { ...at(id, version), body }),
    remove: (id: string, version?: string) => api.DELETE("/api/tasks/{id}", at(id, version)),
  };
}

const { TASKAPI_URL, TASKAPI_TOKEN } = process.env;
assert(TASKAPI_URL !== undefined && TASKAPI_TOKEN !== undefined);
const tasks = connect(TASKAPI_URL, TASKAPI_TOKEN);

// Create. With an id of one's own a request may be sent again when its answer got lost: there is one task all the same.
const id = crypto.randomUUID();
const created = await tasks.create({ id, title: "Water the plants" });
const repeated = await tasks.create({ id, title: "Water the plants" });
const plants = unwrap(created);
assert.deepEqual([created.response.status, repeated.response.status], [201, 200]);
assert.deepEqual(unwrap(repeated), plants);
assert.equal(plants.id, id);

// List, page by page.
for (const title of ["Buy bread", "Call Ben", "Do the dishes"]) unwrap(await tasks.create({ title, description: null }));
const pages: string[][] = [];
for await (const page of tasks.pages({ sort: "-title", is_completed: false, limit: 2 })) {
  pages.push(page.map((task) => task.title));
}
assert.deepEqual(pages, [
  ["Water the plants", "Do the dishes"],
  ["Call Ben", "Buy bread"],
]);

// Change, and send back whole what was received.
const done = await tasks.change(id, { is_completed: true }, versionOf(created));
assert.deepEqual({ ...unwrap(done), updated_at: plants.updated_at }, { ...plants, is_completed: true });
const whole = await tasks.change(id, { ...unwrap(done), title: "Water the plants and the fern" }, versionOf(done));
const unchanged = await tasks.change(id, unwrap(whole), versionOf(whole));
assert.deepEqual({ ...unwrap(unchanged), updated_at: "" }, { ...unwrap(whole), updated_at: "" });

// Somebody else was faster: look at what is there now, then decide.
const stale = await tasks.change(id, { title: "Sell the plants" }, versionOf(done));
assert.equal(stale.response.status, 412);
assert.equal(stale.error?.code, "INVALID_REQUEST");
const current = await tasks.get(id);
assert.deepEqual(current.data, unchanged.data);
const settled = await tasks.change(id, { description: "Not the cactus." }, versionOf(current));

// Delete, and undo.
const removed = unwrap(await tasks.remove(id, versionOf(settled)));
assert.deepEqual(removed, unwrap(settled));
assert.equal((await tasks.get(id)).response.status, 404);
const restored = await tasks.create(removed);
assert.equal(restored.response.status, 201);

// What is refused, and what the user is told.
async function refusal(request: Promise<Answer<Task>>): Promise<[number, ApiError["code"], string]> {
  const { error, response } = await request;
  assert(error, "not refused");
  return [response.status, error.code, explain(error)];
}
const refused = {
  blank: await refusal(tasks.create({ title: " " })),
  missing: await refusal(tasks.remove(crypto.randomUUID())),
  overtaken: await refusal(tasks.remove(id, versionOf(created))),
  stranger: await refusal(connect(TASKAPI_URL).get(id)),
  impostor: await refusal(connect(TASKAPI_URL, "nonsense").get(id)),
};
await assert.rejects(tasks.pages({ cursor: "nonsense" }).next(), (error) => {
  assert(error instanceof Refused && error.reason.code === "VALIDATION_ERROR");
  assert.deepEqual([error.status, Object.keys(error.reason.details)], [400, ["cursor"]]);
  return true;
});

console.log(JSON.stringify({ restored: restored.data, pages, refused }));
