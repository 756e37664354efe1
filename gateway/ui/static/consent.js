// The consent record of a form (templates/forms.html.j2): a file that the user has, or a record that the page makes of fields.
import { Refusal, element, lastPart, refusedAt, say } from "./page.js";
import { sha256Of } from "./operations.js";

const LONGEST_RECORD_BYTES = 64 << 10;
const at = (id) => document.querySelector(`#consent-${id}`);

/** Return the instant at which a day of the user's calendar begins, days later, as records write instants; empty for an empty text. */
function beginOf(date, later = 0) {
  const [year, month, day] = date.split("-").map(Number);
  return date && new Date(year, month - 1, day + later).toISOString().replace(/\.\d+/, "");
}

const NOTHING = { record: null, text: "", isBroken: false };

const today = () => {
  const now = new Date();
  return new Date(now.getTime() - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
};

const names = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);

/**
 * Return the record of the fields as the JSON object that its file holds. It is about an actor, actors/ID, or about the footage with
 * these digests. Fields without a value are left out.
 */
function recordOfFields(actor, digests) {
  const record = {
    subject: at("subject").value.trim(),
    granted_by: at("granted-by").value.trim(),
    scope: at("scope").value.trim(),
    date: at("date").value,
    reference: at("reference").value.trim(),
    projects: names(at("projects").value),
    languages: names(at("languages").value),
    valid_from: beginOf(at("from").value),
    valid_until: beginOf(at("until").value, 1),
    // Together with an actor, digests would have to be those of the actor's own footage. With the actor alone, the faces are compared.
    ...(actor ? { actor: lastPart(actor) } : { footage_sha256: [...new Set(digests)] }),
  };
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value.length));
}

/** Return the record of a file, or null, a sentence about it, and whether the file is no record: {record, text, isBroken}. */
export async function readRecord(file) {
  if (!file) return NOTHING;
  try {
    if (file.size > LONGEST_RECORD_BYTES) throw new SyntaxError("too large");
    const record = JSON.parse(await file.text());
    if (record === null || typeof record !== "object" || Array.isArray(record)) throw new SyntaxError("no object");
    return { record, isBroken: false, text: `Record of ${record.subject}, given by ${record.granted_by ?? record.grantedBy} on ${record.date}.` };
  } catch {
    return { record: null, isBroken: true, text: `${file.name} is no consent record: choose the JSON file with the record of the person.` };
  }
}

/**
 * Listen to the fields of the consent record; `onChange` is called when the record changes, and `actorOf()` returns the actor,
 * actors/ID, whom the record is about; empty: the footage shows the person. Return functions: `record()`, the record, or null if there
 * is none; `ofActor(actor)`, the record of the fields about another actor, or null; `refusal()`, a Refusal for what the record lacks, or
 * null; `footage(uris)`, which makes the record of the fields name these files of the gateway, of which an empty one is not uploaded.
 */
export function consentForm(onChange, actorOf = () => "") {
  const fields = at("of-form");
  let ofFile = NOTHING;
  let files = [];
  let digests = [];
  let reading = false;
  const isForm = () => !fields.hidden;

  function show(kind) {
    document.querySelector(`[name=consent-kind][value=${kind}]`).checked = true;
    at("of-file").hidden = kind === "form";
    fields.hidden = fields.disabled = kind === "file";
  }

  async function nameFootage() {
    const mine = files;
    digests = [];
    reading = isForm() && mine.length > 0 && mine.every(Boolean);
    tell();
    if (!reading) return;
    const read = await Promise.all(mine.map((uri) => sha256Of(uri).catch(() => "")));
    if (mine !== files) return;
    reading = false;
    digests = read;
    tell();
    onChange();
  }

  /** Return why the record of the fields does not say whom it is about; empty: it does. */
  function unnamed() {
    if (actorOf()) return "";
    if (!files.length) return "The record will name the footage by its digest: choose the footage.";
    if (!files.every(Boolean)) return "The record will name the footage by its digest when the footage is uploaded.";
    if (reading) return "The gateway reads the digest of the footage for the consent record.";
    if (!digests.length || !digests.every(Boolean)) return "The record cannot name the footage, because its digest is not known: choose the footage again.";
    return "";
  }

  function tell() {
    at("about").textContent = unnamed() || (actorOf() ? "The record names the enrolled person." : "The record names the footage by its digest (SHA-256).");
  }

  const missing = () => [...fields.elements].find((control) => control.willValidate && !control.validity.valid);
  function refusal() {
    if (!isForm()) return ofFile.isBroken ? new Refusal(ofFile.text, 0, "consent") : null;
    if (unnamed()) return new Refusal(unnamed(), 0, "consent");
    const control = missing();
    return control ? new Refusal(`${control.labels[0].textContent} (consent record): ${control.validationMessage}`, 0, control.dataset.field) : null;
  }

  for (const radio of document.querySelectorAll("[name=consent-kind]")) {
    radio.addEventListener("change", () => {
      show(radio.value);
      nameFootage();
      onChange();
    });
  }
  at("file").addEventListener("change", async (event) => {
    show("file");
    const [file] = event.target.files;
    ofFile = { ...NOTHING, text: "The page reads the consent record.", isBroken: true };
    onChange();
    const answer = await readRecord(file);
    if (at("file").files[0] !== file) return;
    ofFile = answer;
    at("state").textContent = answer.text;
    onChange();
  });
  at("date").max = today();
  fields.form.addEventListener("reset", () => {
    ofFile = NOTHING;
    at("state").textContent = "";
    show("file");
  });
  at("from").addEventListener("change", () => {
    at("until").min = at("from").value || "1900-01-01";
  });
  fields.addEventListener("change", onChange);
  // Another control of the form chooses the actor.
  fields.form.addEventListener("change", tell);
  at("save").addEventListener("click", () => {
    const problem = refusal();
    if (problem) {
      refusedAt(fields.form, problem);
      return;
    }
    const text = new Blob([`${JSON.stringify(recordOfFields(actorOf(), digests), null, 2)}\n`], { type: "application/json" });
    element("a", { href: URL.createObjectURL(text), download: "consent.json" }).click();
    say("The record is saved as consent.json.");
  });

  return {
    record: () => (isForm() ? (missing() ? null : recordOfFields(actorOf(), digests)) : ofFile.record),
    ofActor: (actor) => (isForm() && !missing() ? recordOfFields(actor, []) : null),
    refusal,
    footage(uris) {
      if (JSON.stringify(uris) === JSON.stringify(files)) return undefined;
      files = uris;
      return nameFootage();
    },
  };
}
