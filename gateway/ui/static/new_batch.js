// The form of a new batch: shots from footage and speech, or a manifest; the check of all rows, and the begin of the batch.
import { Refusal, api, at, during, element, idFor, labelOf, lastPart, newRequestId, pageOf, refused, refusedAt, say, withUsersNames } from "./page.js";
import { consentForm } from "./consent.js";
import { fileList, plainName } from "./upload.js";

/** People in the list: an installation may have a million. */
const MOST_ACTORS = 1000;
/** Mistakes of rows that the page shows. */
const MOST_MISTAKES = 50;
const LONGEST_ID = 40;
const OWN_SOUND = "";
const form = at("batch-form");
const isManifest = () => form.elements["batch-source"].value === "manifest";
const batchId = () => idFor(at("batch-name").value, LONGEST_ID);
const stemOf = (name) => plainName(name)[0];

const consent = consentForm(
  () => {},
  () => at("batch-actor").value,
);
const footage = fileList("batch-footage", pair);
const speech = fileList("batch-speech", pair);
/** Speech that the user has chosen, a key of a file, by id of the shot. */
const chosen = new Map();
/** Shots that the table shows, as a text. */
let shownShots = "";

/**
 * Return the shots of the files as {id, footage, speech}. One footage is dubbed with every speech. Of several, each is dubbed with the
 * speech of the same name; the rest of the footage and the rest of the speech belong together in the order of the lists.
 */
function shots() {
  const [videos, sounds] = [footage.files(), speech.files()];
  const namesake = (file, others) => others.find((other) => stemOf(other.name) === stemOf(file.name));
  const rest = sounds.filter((sound) => !namesake(sound, videos));
  const speechOf = (video) => namesake(video, sounds) ?? rest[videos.filter((one) => !namesake(one, sounds)).indexOf(video)];
  const pairs =
    videos.length === 1 && sounds.length > 1
      ? sounds.map((sound) => ({ footage: videos[0], speech: sound, stem: stemOf(sound.name) }))
      : videos.map((video) => ({ footage: video, speech: speechOf(video), stem: stemOf(video.name) }));
  const taken = new Set();
  return pairs.map(({ stem, ...shot }) => {
    let id = stem;
    for (let number = 2; taken.has(id.toLowerCase()); number += 1) id = `${stem}-${number}`;
    taken.add(id.toLowerCase());
    const other = chosen.get(id);
    return { ...shot, id, speech: other === OWN_SOUND ? undefined : (sounds.find((sound) => sound.key === other) ?? shot.speech) };
  });
}

/** Show the shots of the files. */
function pair() {
  const files = footage.files();
  consent.footage(files.map(({ uri }) => uri));
  const sounds = speech.files();
  const pairs = shots();
  showUnused(pairs);
  const now = JSON.stringify([pairs.map((shot) => [shot.id, shot.footage.name, shot.speech?.key]), sounds.map(({ key }) => key)]);
  // An upload that goes on changes nothing in the table.
  if (now === shownShots) return;
  shownShots = now;
  at("batch-shots").hidden = !files.length;
  const focused = document.activeElement.closest("#batch-pairs select")?.getAttribute("aria-label");
  at("batch-pairs").replaceChildren(
    ...pairs.map((shot) => {
      const choice = element(
        "select",
        { "aria-label": `Speech of ${shot.id}`, onchange: () => choose(shot.id, choice.value) },
        element("option", { value: OWN_SOUND }, "own sound"),
        sounds.map((sound) => element("option", { value: sound.key }, sound.name)),
      );
      choice.value = shot.speech?.key ?? OWN_SOUND;
      return element("tr", {}, element("td", { "data-label": "Shot" }, shot.id), element("td", { "data-label": "Footage" }, shot.footage.name), element("td", { "data-label": "New speech" }, choice));
    }),
  );
  if (focused) [...at("batch-pairs").querySelectorAll("select")].find((choice) => choice.getAttribute("aria-label") === focused)?.focus();
}

function choose(id, key) {
  chosen.set(id, key);
  pair();
}

/** Name the sounds that no shot has. */
function showUnused(pairs) {
  const used = new Set(pairs.map((shot) => shot.speech?.key));
  const names = speech.files().filter(({ key }) => !used.has(key)).map(({ name }) => name);
  at("batch-unused").hidden = !pairs.length || !names.length;
  at("batch-unused").textContent = `No shot has the speech ${names.join(", ")}.`;
}

/** Return the bytes of a file in Base64. */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Refusal(`The file ${file.name} cannot be read.`, 0, "manifest"));
    reader.readAsDataURL(file);
  });
}

/** Return the rows of the files, BatchRows of the contract. */
function rows() {
  const pairs = shots();
  if (!pairs.length) throw new Refusal("Choose footage.", 0, "rows");
  if ([...footage.files(), ...speech.files()].some(({ uri }) => !uri)) throw new Refusal("Not all files are uploaded: wait, or remove the others.", 0, "rows");
  if (consent.refusal()) throw consent.refusal();
  const record = consent.record();
  return pairs.map((shot) => ({
    shotId: shot.id,
    dub: {
      footageUri: shot.footage.uri,
      speechUri: shot.speech?.uri ?? "",
      outputUri: `${batchId()}/${shot.id}.mp4`,
      actor: at("batch-actor").value,
      language: at("batch-language").value.trim(),
      project: at("batch-project").value.trim(),
      codec: "VIDEO_CODEC_H264",
      skipPersonalization: !at("batch-actor").value && at("batch-quick").checked,
      ...(record && { consent: record }),
    },
  }));
}

async function request() {
  if (!batchId()) throw new Refusal("Give the batch a name with letters or digits.", 0, "batch_id");
  if (!isManifest()) return { batchId: batchId(), rows: rows() };
  const [file] = at("batch-manifest").files;
  if (!file) throw new Refusal("Choose a manifest.", 0, "manifest");
  return { batchId: batchId(), manifest: await base64(file) };
}

function showMistakes(mistakes) {
  const ids = shots().map(({ id }) => id);
  const position = ({ line, field }) => (isManifest() ? `Line ${line}, ${field}: ` : `Shot ${ids[line - 1]}, ${labelOf(form, `rows.${field}`) || field}: `);
  const more = mistakes.length - MOST_MISTAKES;
  at("batch-mistakes").hidden = !mistakes.length;
  at("batch-mistakes").replaceChildren(
    element("p", {}, "Nothing has begun, because rows are wrong:"),
    element("ul", {}, mistakes.slice(0, MOST_MISTAKES).map((one) => element("li", {}, position(one), withUsersNames(one.description)))),
    more > 0 ? element("p", {}, `${more} further mistakes are not shown.`) : "",
  );
  if (mistakes.length) at("batch-mistakes").focus();
}

/** A second click begins no second batch. */
const requestId = newRequestId();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  during(at("batch-begin"), async () => {
    try {
      const wanted = await request();
      const { mistakes } = await api("POST", "/v1/batches", { ...wanted, validateOnly: true });
      showMistakes(mistakes);
      if (mistakes.length) return;
      say("The rows are right.");
      const { batch } = await api("POST", "/v1/batches", { ...wanted, requestId });
      location.assign(`/ui/batches/${encodeURIComponent(lastPart(batch.name))}`);
      await new Promise(() => {});
    } catch (problem) {
      refusedAt(form, problem);
    }
  });
});

at("batch-name").addEventListener("input", () => {
  at("batch-id").textContent = batchId() ? `Id: ${batchId()}` : "Letters, digits and hyphens.";
});
for (const radio of form.elements["batch-source"]) {
  radio.addEventListener("change", () => {
    at("batch-of-files").hidden = isManifest();
    at("batch-of-manifest").hidden = !isManifest();
    // Fields that are not shown must not hold the form up.
    at("batch-of-files").disabled = isManifest();
  });
}

try {
  const { entries } = await pageOf("/v1/actors", "actors", { pageSize: MOST_ACTORS });
  at("batch-actor").append(...entries.map((actor) => element("option", { value: actor.name }, actor.consent?.subject ?? lastPart(actor.name))));
} catch (problem) {
  refused(problem);
}
