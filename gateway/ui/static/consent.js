// The consent record of a form (templates/forms.html.j2): a file that the user has, or a record that the page makes of fields.
import { Refusal, element, say } from "./page.js";
import { sha256Of } from "./operations.js";

const LONGEST_RECORD_BYTES = 64 << 10;
const at = (id) => document.querySelector(`#consent-${id}`);

/** Return the instant at which a day of the user's calendar begins, days later, as records write instants; empty for an empty text. */
function beginOf(date, later = 0) {
  const [year, month, day] = date.split("-").map(Number);
  return date && new Date(year, month - 1, day + later).toISOString().replace(/\.\d+/, "");
}

const today = () => {
  const now = new Date();
  return new Date(now.getTime() - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
};

const names = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);

/** Return the record of the fields as the JSON object that its file holds. Fields without a value are left out. */
function recordOfFields(digests) {
  const found = {
    subject: at("subject").value.trim(),
    granted_by: at("granted-by").value.trim(),
    scope: at("scope").value.trim(),
    date: at("date").value,
    reference: at("reference").value.trim(),
    projects: names(at("projects").value),
    languages: names(at("languages").value),
    valid_from: beginOf(at("from").value),
    valid_until: beginOf(at("until").value, 1),
    footage_sha256: digests,
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value.length));
}

/** Return the record of a file, or null, and a sentence about it: {record, text}. */
export async function readRecord(file) {
  if (!file) return { record: null, text: "" };
  try {
    if (file.size > LONGEST_RECORD_BYTES) throw new SyntaxError("too large");
    const record = JSON.parse(await file.text());
    if (record === null || typeof record !== "object" || Array.isArray(record)) throw new SyntaxError("no object");
    return { record, text: `Record of ${record.subject}, given by ${record.granted_by ?? record.grantedBy} on ${record.date}.` };
  } catch {
    return { record: null, text: `${file.name} is no consent record: choose the JSON file with the record of the person.` };
  }
}

/**
 * Listen to the fields of the consent record; `onChange` is called when the record changes. Return functions:
 * `record()`, the record, or null if there is none; `refusal()`, a Refusal for what the record lacks, or null;
 * `footage(uris)`, which makes the record of the fields name these files of the gateway.
 */
export function consentForm(onChange) {
  const fields = at("of-form");
  let ofFile = null;
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
    reading = isForm() && mine.length > 0;
    if (!isForm()) return;
    at("about").textContent = mine.length ? "The gateway reads the digest of the footage …" : "The record will name the footage by its digest.";
    const found = await Promise.all(mine.map(sha256Of));
    if (mine !== files) return;
    reading = false;
    digests = [...new Set(found.filter(Boolean))];
    if (mine.length) at("about").textContent = digests.length ? "The record names the footage by its digest (SHA-256)." : "The record names no footage: its digest is not known.";
    onChange();
  }

  const missing = () => [...fields.elements].find((control) => control.willValidate && !control.validity.valid);
  function refusal() {
    if (!isForm()) return null;
    if (reading) return new Refusal("The gateway reads the digest of the footage for the consent record.", 0, "");
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
    const { record, text } = await readRecord(event.target.files[0]);
    ofFile = record;
    at("state").textContent = text;
    onChange();
  });
  at("date").defaultValue = at("date").max = today();
  fields.form.addEventListener("reset", () => {
    ofFile = null;
    at("state").textContent = "";
    show("file");
  });
  at("from").addEventListener("change", () => {
    at("until").min = at("from").value || "1900-01-01";
  });
  fields.addEventListener("change", onChange);
  at("save").addEventListener("click", () => {
    const control = missing();
    if (control) {
      control.reportValidity();
      return;
    }
    const text = new Blob([`${JSON.stringify(recordOfFields(digests), null, 2)}\n`], { type: "application/json" });
    element("a", { href: URL.createObjectURL(text), download: "consent.json" }).click();
    say("The record is saved as consent.json.");
  });

  return {
    record: () => (isForm() ? (missing() ? null : recordOfFields(digests)) : ofFile),
    refusal,
    footage(uris) {
      files = uris;
      return nameFootage();
    },
  };
}
