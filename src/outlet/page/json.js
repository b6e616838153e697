// JSON as text. The page does not show what JSON.parse returns: JSON.parse changes large numbers,
// and loses members with the same name.

// Token of JSON: a string, a punctuation mark, or a number or word.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// Returns the text of the value of a member of an object. The member must be the last one. Returns
// undefined if there is none.
export function lastMember(text, name) {
  const token = new RegExp(TOKEN);
  for (let depth = 0, found; (found = token.exec(text)); ) {
    const [part] = found;
    if (part === "{" || part === "[") depth++;
    else if (part === "}" || part === "]") depth--;
    else if (depth === 1 && part === JSON.stringify(name) && text[token.lastIndex] === ":") {
      return text.slice(token.lastIndex + 1, -1);
    }
  }
}

// Returns JSON with line ends and indentation.
export function pretty(text) {
  const tokens = text.match(TOKEN) ?? [];
  let out = "";
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  tokens.forEach((token, at) => {
    if (token === "{" || token === "[") {
      depth++;
      out += token;
      if (!"}]".includes(tokens[at + 1])) out += line();
    } else if (token === "}" || token === "]") {
      depth--;
      out += "{[".includes(tokens[at - 1]) ? token : line() + token;
    } else if (token === ",") out += token + line();
    else out += token === ":" ? ": " : token;
  });
  return out;
}
