// Operations of the gateway as the pages show them.
import { Refusal, api, lastPart, pageOf, secondsOf, withUsersNames } from "./page.js";

const STEPS = JSON.parse(document.getElementById("step-names").textContent);
const REASONS = {
  DUBBED: ["dubbed", "#2f9e6e"],
  SILENT: ["mouth at rest in silence", "#4a90d9"],
  NO_FACE: ["no face", "#9aa3ad"],
  TARGET_NOT_PRESENT: ["person not in the picture", "#6b7785"],
  LOW_CONFIDENCE: ["face not clear enough", "#e0a13a"],
  PROFILE_VIEW: ["person looks away", "#8f6fd0"],
  OCCLUDED_MOUTH: ["mouth covered", "#d0573f"],
  FACE_TOO_SMALL: ["face too small", "#b98a5e"],
  OUT_OF_FRAME: ["mouth outside of the picture", "#c25b97"],
  NO_LINE: ["no line spoken", "#b8bec6"],
};

/** Return the name of a step in the user's words. */
export const stepName = (step) => STEPS[step.replace("OPERATION_STEP_", "").toLowerCase().replaceAll("_", " ")] ?? "Wait for the gateway";

/** Return the reason of a frame as {code, text, colour}. */
export function reasonOf(name) {
  const code = name.replace("FRAME_REASON_", "");
  const [text, colour] = REASONS[code] ?? [code.toLowerCase().replaceAll("_", " "), "#444c56"];
  return { code, text, colour };
}

/** Return what a page needs of an operation of CreateDub; null: the operation is another one. */
export function dubOf(operation) {
  const progress = operation.metadata ?? {};
  if (!progress.dub) return null;
  const result = operation.response ?? null;
  const cancelled = operation.error?.code === 1;
  return {
    id: lastPart(operation.name),
    name: operation.name,
    request: progress.dub,
    created: progress.createTime ?? "",
    fraction: progress.fraction ?? 0,
    step: progress.step ?? "",
    done: Number(progress.done ?? 0),
    total: Number(progress.total ?? 0),
    remaining: progress.remaining === undefined ? null : secondsOf(progress.remaining),
    ended: operation.done,
    result,
    cancelled,
    problem: operation.error && !cancelled ? withUsersNames(operation.error.message) : "",
    state: !operation.done ? "running" : operation.error ? (cancelled ? "cancelled" : "failed") : "done",
  };
}

/** Return a page of the user's dubs, the newest first, as {dubs, token}. */
export async function newestDubs(pageSize, pageToken = "", done = false) {
  const filter = `${done ? "done=true AND " : ""}kind=dub AND order=newest`;
  const { entries, token } = await pageOf("/v1/operations", "operations", { pageSize, pageToken, filter });
  return { dubs: entries.map(dubOf).filter(Boolean), token };
}

/** Return the address of a file of the gateway for players and downloads. */
export const mediaUrl = (uri) => `/ui/media/${uri.split("/").map(encodeURIComponent).join("/")}`;

const SEQUENCE = /(%0?\d*d|#|@)[^/]*\.(exr|dpx|tiff?|png)$/i;

/** Return whether the gateway may send a file to the browser: the file lies in the media folder, and is no image sequence. */
export const isSent = (uri) => Boolean(uri) && !uri.includes("://") && !uri.startsWith("/") && !SEQUENCE.test(uri);

/** Endings of single pictures that browsers show. */
const PICTURE = /\.(png|jpe?g|webp|avif|gif|bmp)$/i;

/** Show a file of the gateway in a video element: a video, or a single picture. A picture that fails raises the video's event. */
export function showFile(video, address) {
  const isPicture = PICTURE.test(new URL(address, location).pathname);
  video.removeAttribute("poster");
  video.shown = address;
  if (!isPicture) {
    video.src = address;
    return;
  }
  video.removeAttribute("src");
  video.load();
  const picture = new Image();
  const answer = (name, act) =>
    picture.addEventListener(name, () => {
      // The user may have chosen another file meanwhile.
      if (video.shown === address) act();
    });
  answer("load", () => {
    video.poster = address;
    video.dispatchEvent(new Event("picture"));
  });
  answer("error", () => video.dispatchEvent(new Event("error")));
  picture.src = address;
}

/** Fits whose video has a timeline of its own. */
const OWN_TIME = new Set(["FIT_LOOP", "FIT_BOUNCE", "FIT_RETIME", "FIT_SLOW"]);

/** Return whether a dub shows other moments of the footage than a video that runs beside the dub. */
export const hasOwnTime = (fit, before, after, frameRate) =>
  OWN_TIME.has(fit) || (fit !== "FIT_PAD" && Boolean(before?.duration) && after.duration - before.duration > 3 / frameRate);

/** Return whether the video of a fit shows other moments of the footage at each time. */
export const movesTime = (fit) => OWN_TIME.has(fit);

export const ABOUT_OWN_TIME = "The dub has a timeline of its own, so the two videos show different moments of the footage.";

/** Return why the browser does not show the original of a dub, as a sentence. */
export async function whyNotShown(uri) {
  if (!uri || uri.includes("://") || uri.startsWith("/")) {
    return `The original lies ${uri ? `at ${uri}, outside` : "outside"} of the media folder, so the gateway does not send it.`;
  }
  if (!isSent(uri)) return "The original is an image sequence, which a browser cannot play.";
  const answer = await fetch(mediaUrl(uri), { method: "HEAD" }).catch(() => null);
  if (answer?.ok) return "This browser cannot play the original.";
  if (answer?.status !== 404) return "The gateway did not send the original: load the page again.";
  return uri.startsWith("uploads/") ? "The original is gone: the upload was removed, or has expired." : "The original is not in the media folder any more.";
}

/** Return the SHA-256 of a file of the gateway, hexadecimal; empty: the gateway does not tell it. */
export async function sha256Of(uri) {
  const answer = await fetch(mediaUrl(uri), { method: "HEAD" }).catch(() => null);
  const digest = (answer?.ok && answer.headers.get("Repr-Digest")?.match(/sha-256=:([^:]+):/)?.[1]) || "";
  return Array.from(atob(digest), (letter) => letter.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

const POLL_MS = 700;
const OUTAGE_MS = 120_000;

/** Wait for the end of an operation and return the operation. `onChange` sees every state. A gateway may be away for two minutes. */
export async function ended(name, onChange) {
  let answered = Date.now();
  for (;;) {
    try {
      const operation = await api("GET", `/v1/${name}`);
      answered = Date.now();
      onChange(operation);
      if (operation.done) return operation;
    } catch (problem) {
      const passing = problem instanceof Refusal && (problem.status === 0 || problem.status === 429 || problem.status >= 502);
      if (!passing || Date.now() - answered > OUTAGE_MS) throw problem;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
