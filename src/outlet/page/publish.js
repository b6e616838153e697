// Form that publishes an event. Only the page of `dev` shows the form.
import { refusal } from "./connection.js";

const form = document.getElementById("publish");
const said = document.getElementById("published");

// Returns the query of a request to publish.
function query({ key, attributes }) {
  const query = new URLSearchParams();
  if (key.value) query.set("key", key.value);
  for (const line of attributes.value.split("\n").filter((line) => line.trim())) {
    const [name, ...value] = line.split("=");
    if (value.length === 0) throw new Error(`The attribute ${line} has no value: write name=value.`);
    query.append(`attributes.${name.trim()}`, value.join("="));
  }
  return query;
}

async function publish() {
  const { topic, data } = form.elements;
  const url = `/publish/${encodeURIComponent(topic.value.trim())}?${query(form.elements)}`;
  const response = await fetch(url, { method: "POST", body: data.value });
  if (!response.ok) throw await refusal(response);
  const { ids } = await response.json();
  return `Stored as ${ids.join(", ")}.`;
}

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  said.textContent = "";
  said.textContent = await publish().catch((error) => error.message);
});
