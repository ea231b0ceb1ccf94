// Decodes the stream's binary messages, which `serve/live/wire.py` encodes.

export const TICK = 1, DREAM = 2, LATENT = 3, PICTURE = 4;
const HEAD_BYTES = 16, DREAM_COLUMNS = 16;

const pose = (n, at) => ({ x: n[at], y: n[at + 1], heading: n[at + 2], speed: n[at + 3], progress: n[at + 4] });

export function decode(buffer) {
  const head = new DataView(buffer);
  const kind = head.getUint8(0), first = head.getUint8(1), second = head.getUint8(2);
  const timeMs = head.getFloat64(8, true);
  if (kind === LATENT) {
    return { kind, groups: first, classes: second, values: new Uint8Array(buffer, HEAD_BYTES) };
  }
  if (kind === PICTURE) {
    const steps = head.getFloat32(HEAD_BYTES, true), reward = head.getFloat32(HEAD_BYTES + 4, true);
    return { kind, isRunning: (first & 1) > 0, isEnded: (first & 8) > 0, steps, reward, jpeg: new Uint8Array(buffer, HEAD_BYTES + 8) };
  }
  const n = new Float32Array(buffer, HEAD_BYTES);
  return kind === DREAM ? { kind, steps: dreamSteps(n, first) } : tick(kind, timeMs, first, second, n);
}

function tick(kind, timeMs, flags, others, n) {
  const hasRival = (others & 1) > 0, hasGhost = (others & 2) > 0;
  return {
    kind, timeMs,
    isRunning: (flags & 1) > 0, isManual: (flags & 2) > 0, isBraking: (flags & 4) > 0, isEnded: (flags & 8) > 0,
    car: pose(n, 0),
    steering: n[5], throttle: n[6], steps: n[7], reward: n[8],
    rays: n.subarray(9, 14),
    rival: hasRival ? { x: n[14], y: n[15], radius: n[16] } : null,
    ghost: hasGhost ? pose(n, hasRival ? 17 : 14) : null,
  };
}

function dreamSteps(n, length) {
  return Array.from({ length }, (_, h) => {
    const row = n.subarray(h * DREAM_COLUMNS, (h + 1) * DREAM_COLUMNS);
    return {
      x: row[0], y: row[1], heading: row[2],
      dreamt: row.subarray(3, 8), real: row.subarray(8, 13),
      speed: row[13], reward: row[14], continues: row[15],
    };
  });
}
