// Follows a gateway with examples/client, in plain code or in a component of React, and reports to the test
// what it gets. `?follow=` has the options as JSON.
import { createElement, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { useStreamEvents } from "../../examples/client/react";
import { follow, type Options } from "../../examples/client/stream-events";

const query = new URLSearchParams(location.search);
const gateway = query.get("gateway")!;
const options: Omit<Options, "onEvent"> = JSON.parse(query.get("follow")!);
// Reports are sent one at a time, so that the test gets them in order.
let last: Promise<unknown> = Promise.resolve();
const report = (what: unknown): void => {
  last = last.then(() => fetch("/report", { method: "POST", body: JSON.stringify(what) }));
};
if (query.has("tokens")) options.token = () => fetch("/token").then((answer) => answer.text());

function List() {
  const { events, state } = useStreamEvents(gateway, { ...options, keep: 2 });
  useEffect(() => report({ list: events.map((event) => event.data), state: state.state }));
  return createElement("ol", null, events.map(({ id, data }) => createElement("li", { key: id }, String(data))));
}

if (query.has("react")) createRoot(document.body).render(createElement(List));
else {
  follow(gateway, {
    ...options,
    onEvent: ({ topic, event, data, attributes }) => report({ topic, event, data, attributes }),
    onGap: ({ reason }) => report({ gap: reason }),
    onState: (state) => report(state),
    onRenewal: (seconds) => report({ renewed: seconds }),
  });
}
