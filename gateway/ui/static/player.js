// Two videos in lock-step: one over the other with a wipe, by frames. The upper video leads, and the lower one follows.
import { at, element } from "./page.js";

/** Largest difference of the two videos that is corrected by speed; beyond, the lower video jumps, seconds. */
const JUMP_S = 0.3;

/** Room of a name beside the edge of the wipe, pixels. */
const MARGIN_PX = 20;
/**
 * Keys of all players: keys as events name them, the words of the help, the button that does the same, and whether sliders and buttons
 * keep the keys when they have the focus.
 */
const KEYS = [
  { keys: [" "], text: "plays and pauses", ofButtons: true, act: (player) => player.toggle() },
  { keys: ["ArrowLeft", ","], text: "steps one frame back", button: "back", act: (player) => player.step(-1) },
  { keys: ["ArrowRight", "."], text: "steps one frame forward", button: "forward", act: (player) => player.step(1) },
  { keys: ["l"], text: "loops", button: "loop", act: (player) => player.setLoop(!player.after.loop) },
];
const SHOWN = { " ": "Space", ArrowLeft: "←", ArrowRight: "→" };

/**
 * Listen to the keys of a player and to further keys of the page, and name all of them in #keys. `player()` returns the player, or null.
 * Further keys: {keys, text, button} of a button that the key presses.
 */
export function listenToKeys(player, further = []) {
  const every = [...KEYS, ...further];
  const shownKeys = (keys) => keys.flatMap((key, index) => [index ? " or " : "", element("kbd", {}, SHOWN[key] ?? (key.length === 1 ? key.toUpperCase() : key))]);
  at("keys").replaceChildren("Keys: ", ...every.flatMap(({ keys, text }, index) => [index ? ", " : "", ...shownKeys(keys), ` ${text}`]), ".");
  for (const { keys, button } of every) if (button) at(button).setAttribute("aria-keyshortcuts", keys.join(" "));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range]), select, textarea, dialog *")) return;
    const entry = every.find(({ keys }) => keys.includes(event.key));
    const isKept = event.key.startsWith("Arrow") ? event.target.matches("input") : entry?.ofButtons && event.target.matches("button, a, summary");
    if (!entry || isKept) return;
    event.preventDefault();
    if (!entry.act) at(entry.button).click();
    else if (player()) entry.act(player());
  });
}

/** Show a share of the lower video, percent, and the names of the videos whose part has room for the name. */
export function wipeTo(share) {
  const stage = at("stage");
  at("wipe").value = share;
  stage.style.setProperty("--wipe", `${share}%`);
  for (const [name, part] of [["before", share], ["after", 100 - share]]) {
    const badge = stage.querySelector(`.name.${name}`);
    badge.style.visibility = part > 0 && (part / 100) * stage.clientWidth >= badge.offsetWidth + MARGIN_PX ? "visible" : "hidden";
  }
}

export class Player {
  /**
   * @param {HTMLVideoElement} before lower video
   * @param {HTMLVideoElement} after upper video, which leads
   * @param {{frameRate: number, numFrames: number}} facts of the upper video
   * @param {(frame: number) => void} onFrame called when another frame is shown
   */
  constructor(before, after, facts, onFrame) {
    this.before = before;
    this.after = after;
    this.frameRate = facts.frameRate;
    this.numFrames = facts.numFrames;
    this.onFrame = onFrame;
    this.speed = 1;
    /** Time of the lower video at the begin of the upper one, seconds. */
    this.begin = 0;
    this.shown = -1;
    after.addEventListener("ended", () => this.pause());
    for (const video of [before, after]) {
      for (const name of ["seeked", "loadeddata"]) video.addEventListener(name, () => this.redraw());
    }
    before.addEventListener("loadedmetadata", () => this.follow(true));
    const tick = () => {
      this.follow(false);
      if (this.frame !== this.shown) this.redraw();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  get playing() {
    return !this.after.paused;
  }

  get frame() {
    return Math.min(this.numFrames - 1, Math.floor(this.after.currentTime * this.frameRate + 1e-3));
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  /** Begin anew after the last frame, or stop there. The button #loop shows which. */
  setLoop(loops) {
    this.after.loop = loops;
    at("loop").setAttribute("aria-pressed", loops);
  }

  redraw() {
    this.shown = this.frame;
    this.onFrame(this.shown);
  }

  async play() {
    if (this.after.ended) this.after.currentTime = 0;
    this.follow(true);
    this.after.playbackRate = this.speed;
    this.before.play().catch(() => {});
    // A pause that comes before the begin rejects the promise, which is no fault.
    await this.after.play().catch(() => {});
  }

  pause() {
    this.after.pause();
    this.before.pause();
    this.seek(this.frame);
  }

  /** Show a frame in both videos. The middle of the frame's time is clear of rounding. */
  seek(frame) {
    const kept = Math.max(0, Math.min(this.numFrames - 1, frame));
    this.after.currentTime = (kept + 0.5) / this.frameRate;
    this.follow(true);
  }

  step(frames) {
    if (this.playing) this.pause();
    this.seek(this.frame + frames);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.after.playbackRate = speed;
    this.before.playbackRate = speed;
  }

  /** Bring the lower video to the time of the upper one: by its speed while both play, otherwise at once. */
  follow(now) {
    const { before, after } = this;
    if (!before.duration || before.error) return;
    const time = Math.max(0, Math.min(after.currentTime + this.begin, before.duration - 0.5 / this.frameRate));
    const late = before.currentTime - time;
    if (now || Math.abs(late) > JUMP_S) {
      if (Math.abs(late) > 1e-4) before.currentTime = time;
      if (this.playing && before.paused && time < before.duration - 0.1) before.play().catch(() => {});
    } else if (this.playing) {
      before.playbackRate = Math.abs(late) > 0.25 / this.frameRate ? this.speed * Math.max(0.5, Math.min(2, 1 - 3 * late)) : this.speed;
    }
  }
}
