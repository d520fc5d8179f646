// Calls to the server. An error carries the server's own sentence.

export class ServerError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export async function call(path, { method = "GET", json, body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: json === undefined ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is it still running?", 0, null);
  }
  if (response.status === 204) return null;
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null;
  }
  if (!response.ok) {
    if (response.status === 401) location.reload(); // the session has ended; the server answers with its sign-in page
    const message = answer?.error?.message;
    throw new ServerError(message ? sentence(message) : `The server answered ${response.status}.`, response.status, answer?.error?.code);
  }
  return answer;
}

const at = (library, rest = "") => `/v1/libraries/${encodeURIComponent(library)}${rest}`;

export const search = (request, signal) => call("/v1/search", { method: "POST", json: request, signal });
export const libraries = () => call("/v1/libraries");
export const library = (id) => call(at(id));
export const failures = (id) => call(at(id, "/failures"));
export const item = (id, hit, signal) => call(at(id, `/items/${encodeURIComponent(hit)}`), { signal });
export const thumbnail = (id, hit) => at(id, `/items/${encodeURIComponent(hit)}/thumbnail?size=320`);
export const label = (id, query, hit, value) =>
  call(at(id, "/labels"), { method: "PUT", json: { query, item: hit, value } });
export const addPaths = (id, paths) => call(at(id, "/items"), { method: "POST", json: { paths } });
export const jobs = () => call("/v1/jobs");
export const cancelJob = (job) => call(`/v1/jobs/${encodeURIComponent(job)}`, { method: "DELETE" });
export const jobEvents = (job) => new EventSource(`/v1/jobs/${encodeURIComponent(job)}/events`);

export function addFiles(id, files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.webkitRelativePath || file.name);
  return call(at(id, "/items"), { method: "POST", body: form });
}

/** A list under whichever name it comes, or as it is. */
export const listed = (answer, name) => (Array.isArray(answer) ? answer : (answer?.[name] ?? answer?.data ?? []));

function sentence(message) {
  const text = String(message).trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
