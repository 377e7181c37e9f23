/** Why a server cannot be reached: found out by a connection beside the channel's, and told in plain words. */
import { status as Code } from "@grpc/grpc-js";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions } from "node:tls";

import { ConnectionError, TlsError } from "./errors.js";

/** How long the first connection of the channel is waited for, before another one finds out what is wrong. */
export const CONNECT_LIMIT = 2_000;
/** How long that one may take. */
export const TROUBLE_LIMIT = 3_000;
/** How long after the handshake the server's judgement of the client's certificate is waited for. */
const JUDGEMENT = 1_000;
/** What a client of HTTP/2 says first, and its settings. The server answers with its own. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
/** What the alerts of TLS begin with. No frame of HTTP/2 that comes first does. */
const ALERT = 0x15;

/** Where a server is. */
export interface Way {
  host: string;
  port: number;
  /** What TLS is done with; none where the server has no TLS. */
  tls: ConnectionOptions | undefined;
}

/** What is wrong on the way to a server; nothing when that is not known. */
export async function trouble(way: Way, limit = TROUBLE_LIMIT): Promise<ConnectionError | undefined> {
  try {
    const first = await firstByte(way, limit);
    if (way.tls) return undefined;
    if (first === "H".charCodeAt(0)) {
      return failed(way, "no gRPC server answers there: see whether the port is the one for calls");
    }
    if (first === ALERT || (first === undefined && (await speaksTls(way, limit)))) {
      return wrongTls(way, "the server speaks TLS: write https://, and name its CA with caFile");
    }
    return undefined;
  } catch (error) {
    return told(way, error as NodeJS.ErrnoException);
  }
}

/** Not all that speak TLS say so to a client that does not. Nothing is sent to it, so it need not be known. */
async function speaksTls(way: Way, limit: number): Promise<boolean> {
  return firstByte({ ...way, tls: { rejectUnauthorized: false } }, limit).then(() => true, () => false);
}

/** The first byte that the server says, if it says one. */
function firstByte({ host, port, tls }: Way, limit: number): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const socket: Socket = tls ? connectTls({ host, port, ALPNProtocols: ["h2"], ...tls }) : connectTcp({ host, port });
    let isOpen = false;
    const end = (then: () => void) => {
      clearTimeout(timer);
      socket.destroy();
      then();
    };
    const late = () => end(() => (isOpen ? resolve(undefined) : reject(silent())));
    let timer = setTimeout(late, limit);
    socket.once(tls ? "secureConnect" : "connect", () => {
      isOpen = true;
      if (!tls) return void socket.write(PREFACE);
      // Over TLS 1.3 a server judges the client's certificate only now. Nothing is sent: it could be answered by a
      // reset, which takes away what the server said before.
      clearTimeout(timer);
      timer = setTimeout(late, Math.min(limit, JUDGEMENT));
    });
    socket.once("data", (data) => end(() => resolve(data[0])));
    socket.once("close", () => end(() => (isOpen || !tls ? resolve(undefined) : reject(cutOff()))));
    // Without TLS, one that was cut off tells nothing of the way.
    socket.on("error", (error) => end(() => (isOpen && !tls ? resolve(undefined) : reject(error))));
  });
}

function cutOff(): Error {
  return new Error("the connection was closed in the middle of the handshake");
}

function silent(): NodeJS.ErrnoException {
  return Object.assign(new Error("it does not answer"), { code: "ETIMEDOUT" });
}

const UNKNOWN_ISSUER = new Set([
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED",
]);
const NOT_TLS = /wrong.version.number|packet.length.too.long|http.request|record.layer.failure/i;

function told(way: Way, error: NodeJS.ErrnoException): ConnectionError | undefined {
  const code = error.code ?? "";
  const words = `${code} ${error.message}`;
  switch (code) {
    case "ECONNREFUSED":
      return failed(way, "nothing listens there: see whether the server runs, and whether host and port are right");
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return failed(way, `no address is known for ${way.host}: see whether the host's name is right`);
    case "ETIMEDOUT":
      return failed(way, "nothing answers there: see whether the address is right, and whether a firewall stands between");
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return wrongTls(way, `the server's certificate is for another name than ${way.host}: use a name that it has`);
    case "CERT_HAS_EXPIRED":
      return wrongTls(way, "the server's certificate expired, or this machine's clock is wrong");
    case "CERT_NOT_YET_VALID":
      return wrongTls(way, "the server's certificate is not valid yet, or this machine's clock is wrong");
  }
  if (UNKNOWN_ISSUER.has(code)) {
    return wrongTls(
      way,
      "the server's certificate is signed by a CA that is not trusted here: name its CA with caFile, or see whether " +
        "this is the server that you mean",
    );
  }
  if (!way.tls) return failed(way, `${error.message}: see whether the address is right, and the network works`);
  if (NOT_TLS.test(words)) return wrongTls(way, "the server does not speak TLS: write http:// where it has none");
  if (/alert/i.test(words)) return refused(way, words);
  return wrongTls(way, `TLS with the server failed: ${error.message}`);
}

/** What an alert of the server's means. */
function refused(way: Way, words: string): TlsError {
  const [, alert = ""] = /alert[ _]([\w ]+)/i.exec(words) ?? [];
  if (way.tls?.cert) {
    return wrongTls(
      way,
      `the server does not take this client's certificate (${alert.trim()}): it must be signed by a CA that the server ` +
        "trusts, for clients, and not be expired",
    );
  }
  return /certificate|handshake.failure/i.test(alert)
    ? wrongTls(way, "the server wants a client certificate: give yours with certFile and keyFile")
    : wrongTls(way, `TLS with the server failed: ${alert.trim()}`);
}

function failed({ host, port }: Way, message: string): ConnectionError {
  return new ConnectionError(`${host}:${port}: ${message}`, Code.UNAVAILABLE);
}

function wrongTls({ host, port }: Way, message: string): TlsError {
  return new TlsError(`${host}:${port}: ${message}`, Code.UNAVAILABLE);
}
