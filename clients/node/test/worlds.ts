/** The servers that the same tests run over: the fake, and a real one with TLS and a token. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { chmodSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";

import { Holdfast, type HoldfastOptions } from "holdfast-client";
import { FakeHoldfast } from "holdfast-client/testing";

export type Kind = "good" | "other-amount" | "unknown";

export interface World {
  name: string;
  client(options?: HoldfastOptions): Holdfast;
  /** A card that was not used before. Those of other amounts bring 500. */
  card(kind?: Kind): string;
  /** Stops the server, and starts it again with what it had. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

let number = 0;

/** A text that no other test has. */
export function unique(prefix: string): string {
  number += 1;
  return `${prefix}-${number}`;
}

export async function until(what: string, check: () => boolean | Promise<boolean>, limit = 20_000): Promise<void> {
  for (const ends = Date.now() + limit; !(await check()); ) {
    if (Date.now() > ends) throw new Error(`it did not come to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function fakeWorld(): Promise<World> {
  const fake = await FakeHoldfast.start();
  return {
    name: "fake",
    client: (options) => fake.client(options),
    card(kind = "good") {
      const code = unique("FAKE-0000");
      if (kind === "other-amount") fake.script(code, { amountMinor: 500n });
      if (kind === "unknown") fake.script(code, { state: "FAILED", reason: "CARD_NOT_FOUND" });
      return code;
    },
    restart: () => fake.restart(),
    stop: () => fake.stop(),
  };
}

/** A provider and a server of this program's own, which stop when it does. */
export class RealWorld implements World {
  readonly name = "real";
  readonly directory = mkdtempSync("/tmp/hf-node-");
  readonly #binary: string;
  readonly #cards: Record<Kind, string[]> = { good: [], "other-amount": [], unknown: [] };
  readonly #running = new Set<ChildProcess>();
  #server: ChildProcess | undefined;
  #provider = "";
  #port = 0;

  private constructor(binary: string) {
    this.#binary = binary;
  }

  static async start(binary: string): Promise<RealWorld> {
    const world = new RealWorld(binary);
    try {
      await world.#start();
    } catch (error) {
      await world.stop();
      throw error;
    }
    return world;
  }

  get caFile(): string {
    return join(this.directory, "tls.pem");
  }

  get token(): string {
    return readFileSync(join(this.directory, "data", "admin.token"), "utf8").trim();
  }

  get server(): string {
    return `https://localhost:${this.#port}`;
  }

  client(options: HoldfastOptions = {}): Holdfast {
    const tokenFile = join(this.directory, "data", "admin.token");
    return new Holdfast({ server: this.server, caFile: this.caFile, tokenFile, ...options });
  }

  card(kind: Kind = "good"): string {
    return this.#cards[kind].pop()!;
  }

  async restart(): Promise<void> {
    await ended(this.#server!);
    await this.#serve();
  }

  async stop(): Promise<void> {
    for (const child of [...this.#running].reverse()) await ended(child);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #start(): Promise<void> {
    // Postgres may run as another user than this program.
    chmodSync(this.directory, 0o755);
    const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
    const names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    const files = ["-keyout", join(this.directory, "tls.key"), "-out", this.caFile];
    execFileSync("openssl", [...request.split(" "), ...names, ...files], { stdio: "ignore" });
    const lines = ["code,amount_minor"];
    for (let n = 1000; n < 2000; n += 1) {
      const [good, other] = [`GOOD-${n}-NODE`, `OTHR-${n}-NODE`];
      lines.push(`${good},1000`, `${other},500`);
      this.#cards.good.push(good);
      this.#cards["other-amount"].push(other);
      this.#cards.unknown.push(`NONE-${n}-NODE`);
    }
    const cards = join(this.directory, "cards.csv");
    writeFileSync(cards, `${lines.join("\n")}\n`);
    const ledger = join(this.directory, "ledger.jsonl");
    const { logged } = this.#run("provider", ["simulate-provider", "--listen", "127.0.0.1:0", "--ledger", ledger, "--cards", cards]);
    this.#provider = `http://${await logged("address")}`;
    this.#port = await freePort();
    await this.#serve();
  }

  async #serve(): Promise<void> {
    const settings = {
      listen: `127.0.0.1:${this.#port}`,
      "admin-listen": "127.0.0.1:0",
      "data-dir": join(this.directory, "data"),
      "provider-url": this.#provider,
      "drain-delay": "0s",
      "shutdown-timeout": "5s",
      "tls-cert-file": this.caFile,
      "tls-key-file": join(this.directory, "tls.key"),
    };
    const { child, logged } = this.#run("server", ["serve", ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])]);
    this.#server = child;
    await logged("addr");
  }

  #run(name: string, args: string[]) {
    const file = join(this.directory, `${name}-${this.#running.size}.log`);
    const log = openSync(file, "w");
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([key]) => !key.startsWith("HOLDFAST_") || key === "HOLDFAST_POSTGRES_BIN"),
    );
    const child = spawn(this.#binary, ["--while-stdin-is-open", ...args], { stdio: ["pipe", log, log], env });
    this.#running.add(child);
    /** A field of the first line that has it, which is waited for. */
    const logged = async (field: string): Promise<string> => {
      let found: string | undefined;
      await until(`${name} starts; it says ${readFileSync(file, "utf8")}`, () => {
        if (child.exitCode !== null) throw new Error(`${name} ended: ${readFileSync(file, "utf8")}`);
        for (const line of readFileSync(file, "utf8").split("\n")) {
          try {
            found ??= JSON.parse(line)[field];
          } catch {
            // No line of the log's, or not whole yet.
          }
        }
        return found !== undefined;
      }, 60_000);
      return found!;
    };
    return { child, logged };
  }
}

/** Asks a program that was started here to stop, and waits until it has. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await gone;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
