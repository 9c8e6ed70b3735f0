import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";

const TOLERANCE_SECONDS = 300;
const ED25519 = Buffer.from("302a300506032b6570032100", "hex");

// Takes `whsec_...` or `whpk_...`, headers as Node has them, and the body as a Buffer, before anything parsed it.
export function isGenuine(key, headers, body) {
  const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => headers[`webhook-${name}`] ?? "");
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return signatures.split(" ").some((signature) => signedBy(key, signature, content));
}

function signedBy(key, signature, content) {
  const [version, encoded = ""] = signature.split(",");
  const [kind, secret] = [key.slice(0, key.indexOf("_")), Buffer.from(key.slice(key.indexOf("_") + 1), "base64")];
  const given = Buffer.from(encoded, "base64");
  if (kind === "whsec" && version === "v1") {
    const expected = createHmac("sha256", secret).update(content).digest();
    return given.length === expected.length && timingSafeEqual(given, expected);
  }
  if (kind === "whpk" && version === "v1a") {
    const publicKey = createPublicKey({ key: Buffer.concat([ED25519, secret]), format: "der", type: "spki" });
    return verify(null, content, publicKey, given);
  }
  return false;
}
