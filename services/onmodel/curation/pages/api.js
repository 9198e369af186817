// Talking to the server. Actions go one after the other, in the order they were made, and are sent again until they
// are answered: each carries a token, so that an answer that was lost does nothing twice.

const HEADERS = { "content-type": "application/json", "x-onmodel": "1" };
const RETRY_MS = 1000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answer(response) {
  const body = response.headers.get("content-type")?.startsWith("application/json") ? await response.json() : null;
  if (!response.ok) throw new Refused(response.status, body?.error ?? (await response.text().catch(() => "")) ?? "");
  return body;
}

export const get = async (path) => answer(await fetch(path, { headers: HEADERS }));

export const post = async (path, body) =>
  answer(await fetch(path, { method: "POST", headers: HEADERS, body: JSON.stringify(body) }));

function random() {
  // Not randomUUID: it exists on https and localhost alone.
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function ownName() {
  const name = sessionStorage.getItem("onmodel-page") ?? random();
  sessionStorage.setItem("onmodel-page", name);
  return name;
}

export const client = ownName();

export class Queue {
  #tail = Promise.resolve();
  waiting = 0;

  // `offline(true)` is called when the server does not answer, `offline(false)` when it does again.
  constructor(offline) {
    this.offline = offline;
  }

  // Adds one request. `body()` is asked when its turn comes; null leaves it out. Gives the answer.
  add(path, body) {
    this.waiting += 1;
    const run = this.#tail.then(() => this.#send(path, body)).finally(() => (this.waiting -= 1));
    this.#tail = run.catch(() => {});
    return run;
  }

  // Resolves when all that was added has been answered.
  idle() {
    return this.#tail;
  }

  async #send(path, body) {
    const made = body();
    if (made === null) return null;
    const request = { ...made, client, token: random() };
    for (;;) {
      try {
        const got = await post(path, request);
        this.offline(false);
        return got;
      } catch (error) {
        if (error instanceof Refused) throw error;
        this.offline(true);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }
}
