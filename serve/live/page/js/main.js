// The page's entry point: keeps what the stream sends, and draws it 60 times a second.

import { post, setViewerKey } from "./api.js";
import { Charts } from "./charts.js";
import { drawFan, drawLatent, drawStrip, errorAt } from "./dream.js";
import { ManualInput, isTyping } from "./manual_input.js";
import { Duels, ModelList } from "./models.js";
import { Playback } from "./playback.js";
import { Road } from "./road.js";
import { Rollout } from "./rollout.js";
import { Scene } from "./scene.js";
import { Stream } from "./stream.js";
import { TryIt } from "./try.js";
import { DREAM, PICTURE, TICK } from "./wire.js";

const STEPS_PER_S = 30, CONTROL_EVERY_MS = 50, FLASH_MS = 2200;
const byId = (id) => document.getElementById(id);
const seconds = (steps) => (steps / STEPS_PER_S).toFixed(2);
const count = new Intl.NumberFormat("en");

const playback = new Playback(), road = new Road(byId("road"));
const charts = new Charts(byId("reward-chart"), byId("loss-chart"));
const models = new ModelList(byId("versions"), byId("ghosts")), duels = new Duels(byId("duels"));
const manualInput = new ManualInput(document.querySelectorAll("#touch button"));
const tryIt = new TryIt(byId("sliders"), {
  steering: byId("try-steering"), throttle: byId("try-throttle"),
});
const rollout = new Rollout(byId("rollout"), () => isLost(), (text) => write("rollout-message", text));
const live = { id: null, run: null, state: null, dream: null, latent: null, bestLap: null, saved: null, frame: null };

const scene = new Scene(byId("scene"), (id, text) => write(id, text));

function write(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

const handlers = {
  hello({ id, key, run }) {
    Object.assign(live, { id, run });
    setViewerKey(key);
    byId("run").hidden = !run;
    if (run) write("run", run);
    document.title = run ? `${run} · rlcar live` : "rlcar live";
    models.refresh(run).catch(showError);
    rollout.refresh();
  },
  track(track) {
    road.track = track;
    live.dream = null;
    write("track-seed", track.name);
  },
  scene(message) {
    scene.show(message);
    showState();
  },
  ending({ reward, steps, is_success: isSuccess, reason }) {
    const end = reason ?? (isSuccess === null ? "Episode over" : isSuccess ? "Success" : "No success");
    write("scene-last", reward.toFixed(2));
    flash(`${end}: reward ${reward.toFixed(1)} in ${steps} steps`);
  },
  state(state) {
    const wasPolicy = live.state?.policy;
    live.state = state;
    showState();
    if (state.policy !== wasPolicy) { if (!scene.isShown) tryIt.ask(); models.refresh(live.run).catch(showError); }
  },
  rows({ rows, is_anew: isAnew }) {
    charts.addRows(rows, isAnew);
    live.rowsAtMs = rows.length && !isAnew ? performance.now() : live.rowsAtMs;
  },
  stats: showStats,
  episode({ lap_time_steps: lap, is_crash: isCrash, driver }) {
    if (lap) {
      write("last-lap", seconds(lap));
      live.bestLap = Math.min(lap, live.bestLap ?? Infinity);
      write("best-lap", seconds(live.bestLap));
      flash(`Lap in ${seconds(lap)} s, ${driver}`);
    } else flash(isCrash ? "Off the road" : "Time is up");
  },
  duel({ car, ghost }) { duels.add(car, ghost); },
  versions({ newest }) {
    models.refresh(live.run).catch(showError);
    if (newest !== live.saved) showMessage(`Version ${newest} was published.`);
  },
  error({ error }) { showMessage(error, true); },
};

const stream = new Stream({
  close() { live.id = null; showState(); },
  message(message) { handlers[message.type]?.(message); },
  frame(frame) {
    if (frame.kind === PICTURE) { scene.draw(frame).catch(showError); return; }
    if (frame.kind === TICK) playback.push(frame, performance.now());
    else if (frame.kind === DREAM) live.dream = frame.steps;
    else live.latent = frame;
    if (frame.kind !== TICK) live.isDreamStale = true;
  },
});

function flash(text) {
  write("flash", text);
  byId("flash").classList.add("shown");
  clearTimeout(live.flashTimer);
  live.flashTimer = setTimeout(() => byId("flash").classList.remove("shown"), FLASH_MS);
}

function showMessage(text, isBad = false) {
  write("message", text);
  byId("message").classList.toggle("bad", isBad);
}

const showError = (error) => showMessage(error.message, true);

const command = (work) => async () => {
  try {
    const text = await work();
    if (typeof text === "string") showMessage(text);
  } catch (error) { showError(error); }
};

// Commands need the key of the hello message; without it the server counts them as another client's.
const isLost = () => live.id === null;
const isMine = () => !isLost() && live.state?.driver === live.id;
const isOthers = () => Boolean(live.state?.driver) && !isMine();
const mayCommand = () => !isLost() && !isOthers();

function showState() {
  const { state } = live;
  const control = isLost() ? (state ? "Connection lost, trying again" : "Connecting") : isMine() ? "You have control"
    : isOthers() ? "Watching: somebody else drives" : "Nobody has control";
  write("control-state", control);
  byId("control-state").className = `chip ${isLost() ? (state ? "off" : "") : isMine() ? "on" : ""}`;
  write("control-button", isMine() ? "Release control" : "Take control");
  byId("control-button").hidden = !mayCommand();
  for (const id of ["start", "overlay-start", "reset", "manual", "next-track", "load", "ghost", "save", "versions", "ghosts"]) {
    byId(id).disabled = !mayCommand() || (id === "manual" && scene.isShown);
  }
  if (!state) return;
  write("start", state.is_running ? "Stop" : "Start");
  byId("start").classList.toggle("primary", !state.is_running);
  byId("overlay").hidden = state.is_running;
  write("overlay-text", state.is_manual ? "You drive by hand: arrow keys, touch or gamepad." : state.policy
    ? scene.isShown ? "Watch the policy act." : "Watch the policy drive, or take control yourself."
    : scene.isShown ? "There is no policy yet: the environment gets actions of zeros." : "There is no policy yet: drive by hand meanwhile.");
  write("manual", state.is_manual ? "Let the policy drive" : "Drive by hand");
  byId("manual").setAttribute("aria-pressed", String(state.is_manual));
  write("policy", state.is_manual ? "A person, by hand" : state.policy ?? "No policy yet");
  const note = state.is_manual ? `policy: ${state.policy ?? "none yet"}` : state.follows ? "follows the newest save of the run" : "";
  write("policy-note", state.ghost ? `${note}${note ? "; " : ""}ghost: ${state.ghost}` : note);
  byId("dream-none").hidden = state.dreams;
  byId("dream-body").hidden = !state.dreams;
  byId("touch").classList.toggle("idle", !state.is_manual);
}

function showStats(stats) {
  live.stats = stats;
  charts.setEpisodes(stats.episode_rewards, Math.max(0, stats.episodes - stats.episode_rewards.length));
  const shown = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
  write("episodes", `${count.format(stats.episodes)}`);
  write("reward-mean", shown(charts.last("episode/reward") ?? stats.episode_reward_mean));
  write("loss-mean", stats.loss_mean === null ? "–" : stats.loss_mean.toPrecision(3));
  write("exploration", shown(stats.exploration_rate));
  write("steps-per-s", stats.steps_per_s.toFixed(0));
  if (scene.isShown) {
    const successes = stats.successes ?? null;
    write("scene-successes", successes === null ? "–" : `${successes} of ${stats.episodes}`);
  }
  const lapRate = charts.last(scene.isShown ? "episode/success_rate" : "episode/lap_rate"), trained = charts.last("env_steps");
  write("lap-rate", lapRate === null ? "–" : `${Math.round(100 * lapRate)} %`);
  const isLearning = performance.now() - (live.rowsAtMs ?? -Infinity) < 15_000;
  byId("learning").hidden = trained === null;
  byId("learning").classList.toggle("on", isLearning);
  if (trained !== null) write("learning", `${isLearning ? "Learning" : "Trained"}: ${count.format(trained)} env steps`);
  byId("curriculum").hidden = !stats.curriculum;
  write("curriculum", stats.curriculum ?? "");
  live.viewers = stats.viewers;
}

function showNumbers({ car, steps, isBraking }) {
  write("speed", car.speed.toFixed(1));
  write("progress", (100 * car.progress).toFixed(0));
  write("lap", (steps / STEPS_PER_S).toFixed(1));
  write("position", `${car.x.toFixed(0)}, ${car.y.toFixed(0)}`);
  if (isBraking && isMine() && live.state?.is_manual) flash("No input: braking");
}

function draw(nowMs) {
  requestAnimationFrame(draw);
  charts.draw();
  if (scene.isShown) { if (live.isDreamStale) drawDream(1); return; }
  const frame = playback.at(nowMs), chosen = Number(byId("ahead").value);
  if (frame && live.frame && frame.steps < live.frame.steps) { road.clearTrail(); live.dream = null; }
  live.frame = frame;
  road.draw(frame, live.state?.dreams ? live.dream : null, chosen);
  if (frame && (live.numbersAtMs ?? 0) < nowMs - 100) { live.numbersAtMs = nowMs; showNumbers(frame); }
  if (live.isDreamStale) drawDream(chosen);
}

function drawDream(chosen) {
  live.isDreamStale = false;
  write("ahead-value", String(chosen));
  byId("latent-none").hidden = Boolean(live.latent);
  byId("latent").hidden = !live.latent;
  if (live.latent) drawLatent(byId("latent"), live.latent);
  if (byId("dream-body").hidden || !live.dream) return;
  drawFan(byId("fan"), live.dream[chosen - 1]);
  drawStrip(byId("strip"), live.dream, chosen);
  write("dream-error", errorAt(live.dream, chosen));
}

const toggleRunning = command(() => post(live.state?.is_running ? "stop" : "start"));
const toggleManual = command(() => post("toggle_control"));
const nextTrack = command(() => post("track", {}));
const reset = command(async () => { await post("reset"); road.clearTrail(); });
byId("start").addEventListener("click", toggleRunning);
byId("overlay-start").addEventListener("click", async () => { await toggleRunning(); byId("start").focus({ preventScroll: true }); });
byId("manual").addEventListener("click", toggleManual);
byId("next-track").addEventListener("click", nextTrack);
byId("reset").addEventListener("click", reset);
byId("load").addEventListener("click", command(async () => `${(await models.load()).policy} drives now.`));
byId("ghost").addEventListener("click", command(async () => {
  const { policy } = await models.setGhost();
  return policy ? `${policy} is the ghost now.` : "The ghost is removed.";
}));
byId("save").addEventListener("click", command(async () => {
  live.saved = (await post("save_model", {})).version;
  return `Saved as version ${live.saved}.`;
}));
byId("control-button").addEventListener("click", () => stream.send({ type: isMine() ? "leave" : "take" }));
byId("ahead").addEventListener("input", () => { live.isDreamStale = true; });
byId("try-now").addEventListener("click", () => {
  const top = road.road?.top_speed_px_per_step;
  if (live.frame && top) tryIt.set([...live.frame.rays, live.frame.car.speed / top]);
});

manualInput.isOn = () => Boolean(live.state?.is_manual);
const SHORTCUTS = { m: toggleManual, p: toggleRunning, r: reset, n: nextTrack }, OF_RACE = "mn";
addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), work = scene.isShown && OF_RACE.includes(key) ? null : SHORTCUTS[key];
  if (!work || event.repeat || isTyping(event.target) || event.ctrlKey || event.altKey || event.metaKey || !mayCommand()) return;
  work();
});

// Sent even when nothing is pressed: without input the server brakes the car.
setInterval(() => {
  if (live.state?.is_manual && live.state.is_running && isMine() && !document.hidden) stream.send({ type: "control", ...manualInput.pedals() });
}, CONTROL_EVERY_MS);

setInterval(() => {
  byId("road").dataset.framesPerS = String(road.frames);
  const watching = live.viewers === 1 ? "1 viewer" : `${live.viewers ?? 0} viewers`;
  write("pace", scene.isShown ? `${scene.frames} pictures/s, ${watching}` : `${road.frames} frames/s, ${watching}`);
  scene.frames = 0;
  const { car } = live.frame ?? {};
  if (car) byId("road").setAttribute("aria-label", `The car at ${Math.round(100 * car.progress)} % of the lap, ${car.speed.toFixed(1)} pixels a step`);
  road.frames = 0;
}, 1000);

showState();
requestAnimationFrame(draw);
