/** How a client reaches its server: URL, TLS, token and the settings of the channel. */
import { readFileSync, statSync } from "node:fs";
import { BlockList, isIPv4, isIPv6 } from "node:net";

import { credentials, type ChannelCredentials, type ClientOptions } from "@grpc/grpc-js";
import type { SecureContextOptions } from "node:tls";

import type { Way } from "./reach.js";
import { SERVICE_CONFIG } from "./stubs/service_config.js";

/** Where the server is, and what is shown to it. */
export interface ConnectOptions {
  /** `https://host:port`, or `http://host:port` for a server without TLS. `http://127.0.0.1:50051` when not given. */
  server?: string | undefined;
  /** A file with the CAs to trust, in PEM; those that Node trusts when not given. */
  caFile?: string | undefined;
  /** A file with this client's certificate, and those between it and its CA, in PEM; with `keyFile`. */
  certFile?: string | undefined;
  /** A file with the private key of `certFile`, in PEM. */
  keyFile?: string | undefined;
  /** The token to show, `hf_…`. Only over TLS, or to a server of this machine. */
  token?: string | undefined;
  /** A file with the token. It is read again when it has changed. */
  tokenFile?: string | undefined;
  /** How long a call may take, in milliseconds, beside what it is to wait for; 60,000 when not given. */
  timeout?: number | undefined;
  /** Whether spans are made and the trace is passed on, where @opentelemetry/api is installed. True when not given. */
  telemetry?: boolean | undefined;
  /** Options of the channel of @grpc/grpc-js, which come before those that are set here. */
  channelOptions?: ClientOptions | undefined;
}

/** The options that the environment names: the variables of the command `holdfast`. */
export function optionsFromEnv(env: NodeJS.ProcessEnv): ConnectOptions {
  const of = (name: string) => env[name] || undefined;
  const tokenFile = of("HOLDFAST_TOKEN_FILE");
  return {
    server: of("HOLDFAST_SERVER"),
    caFile: of("HOLDFAST_CA_FILE"),
    certFile: of("HOLDFAST_CERT_FILE"),
    keyFile: of("HOLDFAST_KEY_FILE"),
    tokenFile,
    token: tokenFile ? undefined : of("HOLDFAST_TOKEN"),
  };
}

/** What a client needs to open a channel. */
export interface Target {
  address: string;
  credentials: ChannelCredentials;
  options: ClientOptions;
  token: () => string | undefined;
  /** The same, for a connection that finds out why there is none. */
  way: Way;
}

/** Checks the options and reads the files that they name. */
export function targetOf(options: ConnectOptions): Target {
  const url = serverUrl(options.server ?? "http://127.0.0.1:50051");
  const isTls = url.protocol === "https:";
  const token = tokenOf(options);
  if (token && !isTls && !isLoopback(url.hostname)) {
    throw new TypeError(`a token is sent only over TLS, or to a server of this machine: write https:// in ${url.origin}`);
  }
  const port = Number(url.port) || (isTls ? 443 : 80);
  const tls = isTls ? tlsOf(options) : noTls(options);
  return {
    address: `dns:///${url.hostname}:${port}`,
    credentials: tls
      ? credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.cert ?? null)
      : credentials.createInsecure(),
    way: { host: url.hostname.replace(/^\[|\]$/g, ""), port, tls },
    options: {
      "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
      // The published retries are the ones that are meant, whatever a DNS record says.
      "grpc.service_config_disable_resolution": 1,
      // A connection that went without a word is noticed, also under a batch.
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      // A server that is back is found soon.
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 5_000,
      ...options.channelOptions,
    },
    token: token ?? (() => undefined),
  };
}

function serverUrl(server: string): URL {
  const url = /^https?:\/\//.test(server) ? tryUrl(server) : undefined;
  if (!url || url.username || url.password || url.search || url.hash || url.pathname !== "/") {
    throw new TypeError("server must be a URL like https://host:50051 or http://127.0.0.1:50051");
  }
  return url;
}

function tryUrl(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Whether only this machine reaches a host. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "");
  if (isIPv4(host)) return loopback.check(host, "ipv4");
  return host === "localhost" || (isIPv6(host) && loopback.check(host, "ipv6"));
}

/** The files for TLS, read. */
interface TlsFiles extends SecureContextOptions {
  ca?: Buffer;
  cert?: Buffer;
  key?: Buffer;
}

function tlsOf({ caFile, certFile, keyFile }: ConnectOptions): TlsFiles {
  if (!certFile !== !keyFile) {
    throw new TypeError("certFile and keyFile belong together: give both");
  }
  return {
    ...(caFile && { ca: readPem(caFile, "caFile", "CERTIFICATE") }),
    ...(certFile && { cert: readPem(certFile, "certFile", "CERTIFICATE") }),
    ...(keyFile && { key: readPem(keyFile, "keyFile", "PRIVATE KEY") }),
  };
}

/** Node would pass over a file without what is wanted of it. */
function readPem(file: string, option: string, kind: string): Buffer {
  const text = readFileSync(file);
  if (!new RegExp(`-----BEGIN [A-Z ]*${kind}-----`).test(text.toString("latin1"))) {
    throw new TypeError(`${option}: ${file} holds no ${kind.toLowerCase()} in PEM`);
  }
  return text;
}

function noTls({ caFile, certFile, keyFile }: ConnectOptions): undefined {
  if (caFile || certFile || keyFile) {
    throw new TypeError("caFile, certFile and keyFile are for a server with TLS: write https:// in server");
  }
}

/** What gives the token at each call, if there is one. */
function tokenOf({ token, tokenFile }: ConnectOptions): (() => string) | undefined {
  if (token !== undefined && tokenFile !== undefined) {
    throw new TypeError("token and tokenFile are the same thing twice: give one");
  }
  if (tokenFile !== undefined) return tokenInFile(tokenFile);
  if (token === undefined) return undefined;
  const checked = checkedToken(token, "token");
  return () => checked;
}

function tokenInFile(file: string): () => string {
  let read = readToken(file);
  return () => {
    try {
      if (stamp(file) !== read.stamp) read = readToken(file);
    } catch {
      // It is just being replaced: what it held is as good as before.
    }
    return read.token;
  };
}

function readToken(file: string): { stamp: string; token: string } {
  // The stamp first: a change in between is then seen at the next call.
  const before = stamp(file);
  return { stamp: before, token: checkedToken(readFileSync(file, "utf8"), file) };
}

function stamp(file: string): string {
  const { ino, size, mtimeNs } = statSync(file, { bigint: true });
  return `${ino} ${size} ${mtimeNs}`;
}

/** The token without the spaces around it. What it holds is in no error. */
function checkedToken(text: string, source: string): string {
  const token = text.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new TypeError(`${source} holds no token`);
  }
  return token;
}
