// Lines of a response's body, in groups that arrived together. A line can take many chunks: they are
// joined once, when the line ends.
export async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const end = value.lastIndexOf("\n");
    if (end < 0) {
      parts.push(value);
      continue;
    }
    const whole = parts.join("") + value.slice(0, end);
    parts = [value.slice(end + 1)];
    yield whole.split("\n");
  }
}
