// "Copy as curl": a command that reads the same stream as the page, from the same position.
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Returns the command. In place of the token it has the variable TOKEN, because a shell keeps a
// history of commands.
export function curl(origin, query, id, hasToken) {
  const parts = ["curl -NG", quote(`${origin}/events`), "-H 'Accept: application/x-ndjson'"];
  for (const [name, value] of query) {
    // With an id, the stream does not begin anew.
    if (id && (name === "rewind" || name === "since")) continue;
    parts.push("--data-urlencode", quote(`${name}=${value}`));
  }
  if (id) parts.push("-H", quote(`Last-Event-ID: ${id}`));
  if (hasToken) parts.push('-H "Authorization: Bearer $TOKEN"');
  return parts.join(" ");
}

// Shows the command and puts it into the clipboard, if the browser allows that.
export async function copy(command) {
  const shown = document.getElementById("command");
  shown.textContent = command;
  shown.hidden = false;
  const said = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(command);
    said.textContent = "Copied:";
  } catch {
    said.textContent = "Copy this command:";
    getSelection().selectAllChildren(shown);
  }
}
