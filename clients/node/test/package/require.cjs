const assert = require("node:assert/strict");
const { Holdfast, HoldfastError } = require("holdfast-client");
const { FakeHoldfast } = require("holdfast-client/testing");

(async () => {
  const fake = await FakeHoldfast.start();
  const client = new Holdfast({ server: fake.server });
  await assert.rejects(client.getPool("none"), (error) => error instanceof HoldfastError && error.reason === "POOL_NOT_FOUND");
  client.close();
  await fake.stop();
})();
