// Words of the pages of batches and shots.
import { day, lastPart } from "./page.js";

export const STATES = {
  WAITING: ["soft", "Waiting"],
  RUNNING: ["soft", "Running"],
  DONE: ["good", "Done"],
  UNDUBBED: ["bad", "Not dubbed"],
  FAILED: ["bad", "Failed"],
  CANCELLED: ["soft", "Cancelled"],
};
const DECISIONS = { APPROVED: ["good", "Approved"], REJECTED: ["bad", "Rejected"], ASSIGNED: ["", "Assigned"] };

export const stateOf = (shot) => STATES[shot.state.replace("SHOT_STATE_", "")] ?? ["soft", shot.state];

/** Return look and words of a decision; "Undecided" without one. */
export function decisionOf(review) {
  if (!review) return ["soft", "Undecided"];
  const [look, text] = DECISIONS[review.state.replace("REVIEW_STATE_", "")] ?? ["", review.state];
  return [look, `${text}${review.assignee ? ` to ${review.assignee}` : ""}${review.reviewer ? ` by ${review.reviewer}` : ""}`];
}

export const shotId = (shot) => lastPart(shot.name);
export const hasEnded = (shot) => !["SHOT_STATE_WAITING", "SHOT_STATE_RUNNING"].includes(shot.state);

/** Return a decision as {title, note, place} for the history. */
export function toldDecision(review, presentDigest) {
  const region = review.region;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const place = [
    review.frame === undefined ? "" : `frame ${review.frame}`,
    region ? `place ${percent(region.x)}, ${percent(region.y)}, size ${percent(region.width)} × ${percent(region.height)}` : "",
    (review.outputSha256 ?? "") === presentDigest ? "" : "about an earlier video",
  ];
  return { title: `${decisionOf(review)[1]}, ${day(review.decideTime)}`, note: review.note ?? "", place: place.filter(Boolean).join(", ") };
}

const FIGURES = [
  ["Correlation of target and drawn opening", "rOpening", "minROpening", null],
  ["Opening in silence", "motion.silenceOpening", null, "maxSilenceOpening"],
  ["Spread of the opening, over the person's own", "motion.openingSpread", "minOpeningSpread", "maxOpeningSpread"],
  ["Spread of the lip width, over the person's own", "motion.widthSpread", "minWidthSpread", null],
  ["Fastest change of the opening, over the person's own", "motion.fastestStep", null, "maxFastestStep"],
  ["Teeth of another colour", "appearance.tintAlarms", null, "maxTintAlarms"],
  ["Dark place under the nose", "appearance.nostrilAlarms", null, "maxNostrilAlarms"],
  ["Dull inside of the mouth", "appearance.lowContrast", null, "maxLowContrast"],
  ["Change inside the mouth, over the video's", "appearance.popping", null, "maxPopping"],
  ["Moving clothing", "appearance.clothingMoved", null, "maxClothingMoved"],
  ["Distance of the face from the person's", "appearance.faceDistance", null, "maxFaceDistance"],
  ["Mouth later than the sound, s", "finish.lateness", null, null],
  ["Certainty that mouth and sound belong together", "finish.syncConfidence", null, null],
  ["Speech with a still mouth", "finish.stillShare", null, null],
  ["Edge in the skin", "finish.seam", null, null],
  ["Flicker of the skin", "finish.flicker", null, null],
];

/** Return the figures of a shot with their thresholds, [[name, value, threshold, missed]]. */
export function figuresOf(shot) {
  const quality = shot.quality ?? {};
  const found = [];
  for (const [name, path, low, high] of FIGURES) {
    const value = path.split(".").reduce((holder, key) => holder?.[key], shot);
    if (value === undefined || value === null) continue;
    const number = Number.parseFloat(value);
    const [least, most] = [quality[low], quality[high]];
    const limits = [least === undefined ? "" : `at least ${least}`, most === undefined ? "" : `at most ${most}`].filter(Boolean).join(", ");
    found.push([name, number.toFixed(Math.abs(number) < 0.1 ? 3 : 2), limits, (least !== undefined && number < least) || (most !== undefined && number > most)]);
  }
  return found;
}
