/**
 * A client of taskapi for a front end, to copy. It needs fetch (any browser since 2024, Node.js 20.3) and types, which
 * one command makes while the service runs:
 *
 *     npx openapi-typescript http://127.0.0.1:5000/api/openapi.json -o taskapi.d.ts
 */

import type { components, paths } from "./taskapi";

export type Task = components["schemas"]["Task"];
export type NewTask = components["schemas"]["NewTask"];
export type TaskChanges = components["schemas"]["TaskChanges"];
export type ListQuery = NonNullable<paths["/api/tasks"]["get"]["parameters"]["query"]>;
type ErrorBody = components["responses"][keyof components["responses"]]["content"]["application/json"];

const TIMEOUT = 15_000; // milliseconds; the service itself answers within 12.5 s
const SENDS = 4; // of a request that is safe to repeat, with 1, 2 and 3 s between them
const LONGEST_WAIT = 30; // seconds; where Retry-After says more, a person decides
const DECISIONS = 3; // on a change that others were faster with
const AWAY = [429, 502, 503, 504]; // a proxy has had enough; the service or its database is away

/** An answer of 400 and above. The message is a sentence for people, the code is for programs. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: ErrorBody["code"];
  readonly details: Record<string, string[]>; // of a VALIDATION_ERROR: field -> messages; else empty
  readonly retryAfter: number; // seconds; 0 where the service says nothing

  constructor(response: Response, body: ErrorBody) {
    super(body.error);
    this.status = response.status;
    this.code = body.code;
    this.details = "details" in body ? body.details : {};
    this.retryAfter = Number(response.headers.get("Retry-After")) || 0;
  }
}

/** No answer. A browser does not say whether it is the network, the service, or CORS. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

/** What to do about an error, besides showing its message. The compiler asks for a line for every code. */
export function reactTo({ code, status }: ApiError): "sign in" | "mark fields" | "load again" | "wait" | "report" {
  switch (code) {
    case "UNAUTHORIZED":
    case "INVALID_TOKEN":
    case "TOKEN_EXPIRED": // the new token has expired, too
      return "sign in";
    case "VALIDATION_ERROR":
      return "mark fields"; // in details
    case "NOT_FOUND":
      return "load again"; // another client deleted it
    case "DATABASE_ERROR":
    case "INTERNAL_ERROR":
      return "wait";
    case "INVALID_REQUEST":
      return status === 412 ? "load again" : status === 429 ? "wait" : "report"; // a mistake in the front end
    default:
      return code satisfies never;
  }
}

interface Request {
  body?: NewTask | TaskChanges;
  version?: string; // the updated_at of the task to change
  signal?: AbortSignal | undefined;
}

interface Answer<T> {
  data: T;
  next: string | undefined; // the query of the next page
}

/**
 * The service at an address such as https://example.com/backend, for the user that the token names. getToken is asked
 * before each request, and with true for a new token when the one before has expired.
 */
export function connect(address: string, getToken: (isExpired: boolean) => string | Promise<string>) {
  const base = `${address.replace(/\/+$/, "")}/api/tasks`;
  const page = globalThis.location; // a server has none
  let mayBeCors = page && new URL(base, page.href).origin !== page.origin; // until the first answer

  /** One request, with a new token once more. Throws ApiError, NoAnswer, or the reason of signal. */
  async function send<T>(method: string, path: string, request: Request = {}, isExpired = false): Promise<Answer<T>> {
    const { body, version, signal } = request;
    const headers = new Headers({ Authorization: `Bearer ${await getToken(isExpired)}` });
    if (body) headers.set("Content-Type", "application/json");
    if (version) headers.set("If-Match", `"${version}"`); // the ETag, also if a proxy has changed that header
    const signals = [AbortSignal.timeout(TIMEOUT), ...(signal ? [signal] : [])];
    const options = { method, headers, body: body ? JSON.stringify(body) : null, signal: AbortSignal.any(signals) };
    let response: Response;
    let text: string;
    try {
      response = await fetch(base + path, options);
      mayBeCors = false;
      text = await response.text();
    } catch (cause) {
      if (signal?.aborted) throw cause;
      const question = mayBeCors ? ` Is this page's address, ${page.origin}, in its FRONTEND_URL?` : "";
      throw new NoAnswer(`No answer. Is taskapi running at ${base}?${question}`, { cause });
    }
    const data = parseJson(text);
    if (response.ok && data !== undefined) return { data, next: nextQuery(response.headers.get("Link")) };
    const foreign: ErrorBody = { error: `${base} answered ${response.status} without JSON.`, code: "INTERNAL_ERROR" };
    const error = new ApiError(response, isErrorBody(data) ? data : foreign);
    if (error.code === "TOKEN_EXPIRED" && !isExpired) return send(method, path, request, true);
    throw error;
  }

  /** A request that is safe to repeat, until it is answered or it was enough. What may be CORS is not repeated. */
  async function persist<T>(method: string, path: string, request: Request): Promise<Answer<T>> {
    for (let sends = 1; ; sends++) {
      try {
        return await send<T>(method, path, request);
      } catch (error) {
        const seconds = (error instanceof ApiError && error.retryAfter) || sends;
        const isUnheard = error instanceof NoAnswer && !mayBeCors;
        const isAway = error instanceof ApiError && AWAY.includes(error.status);
        if (!(isUnheard || isAway) || sends === SENDS || seconds > LONGEST_WAIT) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      }
    }
  }

  /** The tasks page by page, each asked for when it is needed. */
  async function* pages(query: ListQuery = {}, signal?: AbortSignal): AsyncGenerator<Task[], void> {
    const given = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== "") given.set(name, String(value)); // an empty q is an error
    }
    let next: string | undefined = String(given);
    while (next !== undefined) {
      const answer: Answer<Task[]> = await persist("GET", `?${next}`, { signal });
      yield answer.data;
      next = answer.next;
    }
  }

  /** All the tasks. */
  async function all(query: ListQuery = {}, signal?: AbortSignal): Promise<Task[]> {
    const tasks: Task[] = [];
    for await (const page of pages(query, signal)) tasks.push(...page);
    return tasks;
  }

  async function get(id: string): Promise<Task> {
    return (await persist<Task>("GET", `/${id}`, {})).data;
  }

  /** With an id it happens once, however often it is sent. To undo a delete, give what remove returned. */
  async function create(task: NewTask): Promise<Task> {
    const id = task.id ?? crypto.randomUUID(); // browsers have it on https and localhost alone
    return (await persist<Task>("POST", "", { body: { ...task, id } })).data;
  }

  /**
   * Change the version that you have. decide gets it, and returns the fields to change or null; where another client
   * was faster, it is asked again about the task as it now is.
   */
  async function edit(task: Task, decide: (task: Task) => TaskChanges | null): Promise<Task> {
    for (let decisions = 1; ; decisions++) {
      const body = decide(task);
      if (!body) return task;
      try {
        return (await send<Task>("PATCH", `/${task.id}`, { body, version: task.updated_at })).data;
      } catch (error) {
        const isOvertaken = error instanceof ApiError && error.status === 412;
        if (!isOvertaken || decisions === DECISIONS) throw error;
        task = await get(task.id);
      }
    }
  }

  /** Returns the task as it last was. */
  async function remove(id: string): Promise<Task> {
    return (await send<Task>("DELETE", `/${id}`)).data;
  }

  return { pages, all, get, create, edit, remove };
}

/** The query of `Link: </api/tasks?…>; rel="next"`: a proxy may add links, or have the API below a path of its own. */
function nextQuery(link: string | null): string | undefined {
  return link?.match(/<[^>?]*\?([^>]*)>[^<]*;\s*rel="?next"?\s*(?:[,;]|$)/i)?.[1];
}

/** Undefined for what is no JSON: a proxy's own page. */
function parseJson(text: string) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isErrorBody(data: unknown): data is ErrorBody {
  return typeof data === "object" && data !== null && "error" in data && "code" in data;
}
