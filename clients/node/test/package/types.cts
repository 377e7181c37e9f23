import { Holdfast } from "holdfast-client";
import { FakeHoldfast } from "holdfast-client/testing";

export const start = async (): Promise<Holdfast> => (await FakeHoldfast.start()).client();
