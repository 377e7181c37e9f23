/** One call: its deadline, its token, its trace, and its error. */
import {
  Client,
  connectivityState as State,
  Metadata,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  type MethodDefinition,
} from "@grpc/grpc-js";

import { targetOf, type ConnectOptions } from "./connect.js";
import { ConnectionError, fromGrpc } from "./errors.js";
import { fromStub, toStub, type Input, type Message } from "./messages.js";
import { CONNECT_LIMIT, trouble, TROUBLE_LIMIT, type Way } from "./reach.js";
import { beginSpan, type CallSpan } from "./telemetry.js";

/** What every call takes. */
export interface CallOptions {
  /** Ends the call when it aborts. What the server has begun goes on. */
  signal?: AbortSignal | undefined;
  /** How long this call may take, in milliseconds, beside what it is to wait for; the client's `timeout` when not given. */
  callTimeout?: number | undefined;
}

/** The stub of a message. */
export interface Stub<T> {
  fromPartial(object: any): T;
}

const DEFAULT_TIMEOUT = 60_000;
/** Errors that say already why the server cannot be reached. */
const isTold = new WeakSet<ConnectionError>();

/** A channel to a server, and the calls on it. */
export class Caller {
  readonly #client: Client;
  readonly #token: () => string | undefined;
  readonly #timeout: number;
  readonly #telemetry: boolean;
  readonly #way: Way;
  /** Whether the server was reached once. */
  #isReached = false;
  #reaching: Promise<void> | undefined;

  constructor(options: ConnectOptions) {
    const target = targetOf(options);
    this.#client = new Client(target.address, target.credentials, target.options);
    this.#token = target.token;
    this.#way = target.way;
    this.#timeout = options.timeout ?? DEFAULT_TIMEOUT;
    this.#telemetry = options.telemetry ?? true;
  }

  close(): void {
    this.#client.close();
  }

  /** A call of one message that is answered with one. `waits` is what the server is asked to wait. */
  async unary<Q, R>(
    method: MethodDefinition<Q, R>,
    stub: Stub<Q>,
    request: Input<Q>,
    options: CallOptions = {},
    waits = 0,
  ): Promise<Message<R>> {
    const { signal } = options;
    signal?.throwIfAborted();
    const message = stub.fromPartial(toStub(request));
    const metadata = this.#metadata();
    const deadline = this.#deadline(options, waits);
    return this.#call(method.path, metadata, signal, deadline, async () => {
      const reply = await new Promise<R>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          message,
          metadata,
          { deadline },
          (error, reply) => {
            stop();
            error ? reject(fromGrpc(error)) : resolve(reply as R);
          },
        );
        const stop = whenAborted(signal, (why) => {
          call.cancel();
          reject(why);
        });
      });
      return fromStub(reply);
    });
  }

  /** A call of many messages, each of which is answered when it is. Without a deadline of its own. */
  async duplex<Q, R>(
    method: MethodDefinition<Q, R>,
    options: CallOptions = {},
  ): Promise<{ call: ClientDuplexStream<Q, R>; end: (error?: unknown) => void }> {
    const { signal } = options;
    signal?.throwIfAborted();
    const metadata = this.#metadata();
    const span = await this.#span(method.path, metadata);
    await this.#reach(signal).catch((error) => {
      span.end(error);
      throw error;
    });
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      metadata,
    );
    // Whoever reads the call gets its error; one that comes afterwards is nobody's.
    call.on("error", () => {});
    const stop = whenAborted(signal, () => call.cancel());
    return {
      call,
      end: (error) => {
        stop();
        call.cancel();
        span.end(error);
      },
    };
  }

  /** A call of one message that is answered with many, for as long as they are taken. Without a deadline of its own. */
  async *serverStream<Q, R>(
    method: MethodDefinition<Q, R>,
    stub: Stub<Q>,
    request: Input<Q>,
    { signal }: CallOptions = {},
  ): AsyncGenerator<Message<R>, void, undefined> {
    signal?.throwIfAborted();
    const message = stub.fromPartial(toStub(request));
    const metadata = this.#metadata();
    const span = await this.#span(method.path, metadata);
    let call: ClientReadableStream<R> | undefined;
    let stop = () => {};
    let ended: unknown;
    try {
      await this.#reach(signal);
      call = this.#client.makeServerStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        message,
        metadata,
      );
      call.on("error", () => {});
      const stream = call;
      stop = whenAborted(signal, () => stream.cancel());
      for await (const each of stream) yield fromStub(each as R);
    } catch (error) {
      ended = signal?.aborted ? signal.reason : await this.told(fromGrpc(error));
      throw ended;
    } finally {
      stop();
      call?.cancel();
      span.end(ended);
    }
  }

  /** A call of many messages that is answered with one, at the end. Without a deadline of its own. */
  async clientStream<Q, R>(
    method: MethodDefinition<Q, R>,
    messages: () => AsyncGenerator<Q>,
    { signal }: CallOptions = {},
  ): Promise<Message<R>> {
    signal?.throwIfAborted();
    const metadata = this.#metadata();
    return this.#call(method.path, metadata, signal, Infinity, async () => {
      const reply = await new Promise<R>((resolve, reject) => {
        const call = this.#client.makeClientStreamRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          metadata,
          (error, reply) => {
            stop();
            error ? reject(fromGrpc(error)) : resolve(reply as R);
          },
        );
        const fail = (why: unknown) => {
          call.cancel();
          reject(why);
        };
        const stop = whenAborted(signal, fail);
        call.on("error", () => {});
        writeAll(call, messages()).catch(fail);
      });
      return fromStub(reply);
    });
  }

  /** One call that has one answer: its span, and why the server cannot be reached where that is so. */
  async #call<T>(
    path: string,
    metadata: Metadata,
    signal: AbortSignal | undefined,
    deadline: number,
    call: () => Promise<T>,
  ): Promise<T> {
    const span = await this.#span(path, metadata);
    let ended: unknown;
    try {
      await this.#reach(signal);
      return await call();
    } catch (error) {
      // Within the call's own time: what renews a lease must not be late.
      ended = await this.told(error, deadline - Date.now());
      throw ended;
    } finally {
      span.end(ended);
    }
  }

  /** The error; or why the server cannot be reached, where it is of that kind. */
  async told(error: unknown, limit = TROUBLE_LIMIT): Promise<unknown> {
    const isOfTheWay = error instanceof ConnectionError && !isTold.has(error);
    if (!isOfTheWay || limit <= 0) return error;
    return (await trouble(this.#way, Math.min(limit, TROUBLE_LIMIT))) ?? error;
  }

  /** Until the server was reached once, throws why it cannot be, at once: it may be named wrongly. */
  async #reach(signal: AbortSignal | undefined): Promise<void> {
    if (this.#isReached) return;
    this.#reaching ??= this.#connect().finally(() => (this.#reaching = undefined));
    const reaching = this.#reaching;
    await new Promise<void>((resolve, reject) => {
      const stop = whenAborted(signal, reject);
      reaching.then(resolve, reject).finally(stop);
    });
  }

  async #connect(): Promise<void> {
    const channel = this.#client.getChannel();
    const ends = Date.now() + CONNECT_LIMIT;
    let state = channel.getConnectivityState(true);
    while ((state === State.IDLE || state === State.CONNECTING) && Date.now() < ends) {
      const before = state;
      await new Promise<void>((resolve) => channel.watchConnectivityState(before, ends, () => resolve()));
      state = channel.getConnectivityState(true);
    }
    this.#isReached = state === State.READY;
    if (this.#isReached || state === State.SHUTDOWN) return;
    const found = await trouble(this.#way);
    if (found) {
      isTold.add(found);
      throw found;
    }
  }

  #span(path: string, metadata: Metadata): Promise<CallSpan> | CallSpan {
    return this.#telemetry ? beginSpan(path, metadata) : { end() {} };
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    const token = this.#token();
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    return metadata;
  }

  #deadline({ callTimeout }: CallOptions, waits: number): number {
    return Date.now() + (callTimeout ?? this.#timeout) + waits;
  }
}

/** Writes one message after the other, as fast as the other side reads. */
async function writeAll<Q>(call: ClientWritableStream<Q>, messages: AsyncGenerator<Q>): Promise<void> {
  for await (const message of messages) {
    if (call.destroyed || call.writableEnded) return;
    if (!call.write(message)) {
      await new Promise<void>((resolve) => {
        for (const event of ["drain", "close", "error", "status"]) call.once(event, () => resolve());
      });
    }
  }
  call.end();
}

/** Calls `then` with the reason when the signal aborts. Answers what stops that. */
export function whenAborted(signal: AbortSignal | undefined, then: (reason: unknown) => void): () => void {
  if (!signal) return () => {};
  const listener = () => then(signal.reason);
  if (signal.aborted) listener();
  else signal.addEventListener("abort", listener, { once: true });
  return () => signal.removeEventListener("abort", listener);
}
