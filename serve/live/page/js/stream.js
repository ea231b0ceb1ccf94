// The WebSocket: receives frames and messages, sends messages, and reconnects.

import { addressOf } from "./api.js";
import { decode } from "./wire.js";

const FIRST_WAIT_MS = 300, LONGEST_WAIT_MS = 5000;

export class Stream {
  constructor(on) {
    this.on = on; // callbacks: {frame, message, close}
    this.waitMs = FIRST_WAIT_MS;
    this.connect();
  }

  connect() {
    const address = addressOf("live");
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { this.waitMs = FIRST_WAIT_MS; };
    this.socket.onmessage = ({ data }) =>
      typeof data === "string" ? this.on.message(JSON.parse(data)) : this.on.frame(decode(data));
    this.socket.onclose = () => {
      this.on.close();
      setTimeout(() => this.connect(), this.waitMs);
      this.waitMs = Math.min(LONGEST_WAIT_MS, 1.7 * this.waitMs);
    };
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}
