// Shows /_sandbox/overview once a second. Every value goes in as text (textContent), never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const time = (iso) => iso.slice(11, 23);
const json = (value) => (value === null || value === undefined || JSON.stringify(value) === "{}" ? "" : JSON.stringify(value));
const tone = (status) => (status === 0 ? "bad" : status < 300 ? "good" : status === 429 ? "warn" : "bad");

function cell(value, style) {
  const td = document.createElement("td");
  td.textContent = value === null || value === undefined ? "" : String(value);
  if (style) td.className = style;
  return td;
}

function fill(id, rows, columns) {
  const body = at(id);
  body.replaceChildren(...rows.map((cells) => {
    const tr = document.createElement("tr");
    tr.append(...cells);
    return tr;
  }));
  if (!rows.length) {
    const td = cell("none yet", "none");
    td.colSpan = columns;
    const tr = document.createElement("tr");
    tr.append(td);
    body.append(tr);
  }
}

function window_(part) {
  return part.limit ? `${part.used} of ${part.limit}` : `${part.used ? part.used + ", " : ""}no limit`;
}

function happened(entry) {
  const words = [];
  if (entry.carried_out) words.push("carried out");
  if (entry.repeated) words.push("repeated send, answered again");
  if (entry.answered === false) words.push("not answered");
  if (entry.fault) words.push(`fault: ${entry.fault}`);
  if (entry.message) words.push(entry.message);
  return words.join("; ");
}

function show(data) {
  const state = data.state;
  const chosen = at("environment").value;
  const totals = { calls: state.counts.received || 0, "not answered": state.counts.unanswered || 0 };
  for (const [name, world] of Object.entries(state.environments)) {
    if (chosen && chosen !== name) continue;
    totals[`contacts (${name})`] = world.contacts;
    totals[`emails (${name})`] = world.emails;
    totals[`suppressed (${name})`] = world.suppressed;
  }
  at("counts").replaceChildren(...Object.entries(totals).map(([name, count]) => {
    const div = document.createElement("div");
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = count.toLocaleString("en");
    div.append(dt, dd);
    return div;
  }));
  fill("keys", state.keys.map((key) => [
    cell(key.revoked ? `${key.name} (revoked)` : key.name, key.revoked ? "bad" : ""),
    cell(window_(key.quota.minute)), cell(window_(key.quota.hour)), cell(key.quota.algorithm),
  ]), 4);
  fill("calls", Object.entries(state.calls).map(([endpoint, statuses]) => [
    cell(endpoint, "tight"),
    cell(Object.entries(statuses).map(([status, count]) => `${status === "0" ? "no answer" : status}: ${count}`).join(", ")),
  ]), 2);
  const { rules, hang_seconds, ...rates } = state.faults;
  const on = Object.entries(rates).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`);
  if (rules.length) on.push(`${rules.length} rule(s)`);
  at("faults").textContent = on.length ? `Faults on: ${on.join(", ")}` : "No faults are switched on.";
  fill("contacts", data.contacts.map((contact) => [
    cell(contact.email, "who"), cell(contact.external_id), cell(contact.status, contact.status === "active" ? "good" : "bad"),
    cell(json(contact.custom_fields), "data"), cell(contact.tags.map((tag) => tag.name).join(", ")),
    cell(contact.emails_sent), cell(time(contact.updated_at), "tight"),
  ]), 7);
  fill("automations", data.automations.map((line) => [
    cell(time(line.at), "tight"), cell(line.type, "tight"), cell(line.email, "who"), cell(json(line.detail), "data"),
  ]), 4);
  fill("emails", data.emails.map((email) => [
    cell(time(email.at), "tight"), cell(email.trigger_key), cell(email.to_email, "who"), cell(json(email.variables), "data"),
    cell(email.status),
  ]), 5);
  fill("ledger", data.ledger.filter((entry) => !chosen || entry.environment === chosen).map((entry) => [
    cell(entry.number), cell(time(entry.received_at), "tight"), cell(entry.endpoint || `${entry.method} ${entry.path}`),
    cell(entry.contact, "who"), cell(entry.key, "tight"), cell(entry.status || "none", tone(entry.status)), cell(happened(entry)),
    cell(json(entry.body), "data"),
  ]), 8);
}

async function refresh() {
  const query = new URLSearchParams({ environment: at("environment").value, search: at("search").value });
  try {
    const answer = await fetch(`/_sandbox/overview?${query}`);
    show(await answer.json());
    at("trouble").textContent = "";
  } catch {
    at("trouble").textContent = "The sandbox does not answer; trying again.";
  }
}

async function loop() {
  if (at("live").checked && !document.hidden) await refresh();
  setTimeout(loop, 1000);
}

at("base").textContent = `${location.origin}/api/v1`;
at("filter").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", refresh);
loop();
