/** One call: its deadline, its token, its trace, and its error. */
import {
  Client,
  Metadata,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  type MethodDefinition,
} from "@grpc/grpc-js";

import { targetOf, type ConnectOptions } from "./connect.js";
import { fromGrpc } from "./errors.js";
import { fromStub, toStub, type Input, type Message } from "./messages.js";
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

/** A channel to a server, and the calls on it. */
export class Caller {
  readonly #client: Client;
  readonly #token: () => string | undefined;
  readonly #timeout: number;
  readonly #telemetry: boolean;

  constructor(options: ConnectOptions) {
    const target = targetOf(options);
    this.#client = new Client(target.address, target.credentials, target.options);
    this.#token = target.token;
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
    const span = await this.#span(method.path, metadata);
    try {
      const reply = await new Promise<R>((resolve, reject) => {
        const call = this.#client.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          message,
          metadata,
          { deadline: this.#deadline(options, waits) },
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
      span.end();
      return fromStub(reply);
    } catch (error) {
      span.end(error);
      throw error;
    }
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
    const call: ClientReadableStream<R> = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      message,
      metadata,
    );
    call.on("error", () => {});
    const stop = whenAborted(signal, () => call.cancel());
    let ended: unknown;
    try {
      for await (const each of call) yield fromStub(each as R);
    } catch (error) {
      ended = signal?.aborted ? signal.reason : fromGrpc(error);
      throw ended;
    } finally {
      stop();
      call.cancel();
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
    const span = await this.#span(method.path, metadata);
    try {
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
      span.end();
      return fromStub(reply);
    } catch (error) {
      span.end(error);
      throw error;
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
