// A hook for React 18 and 19: the newest events of some topics, and the state of the stream.
//
//   const { events, state } = useStreamEvents("https://events.example.com", { topics: ["orders"] });

import { useEffect, useRef, useState } from "react";
import { follow, type Gap, type Options, type State, type StreamEvent } from "./stream-events.js";

export interface Settings extends Omit<Options, "onEvent" | "onGap" | "onState"> {
  /** How many events to keep. */
  keep?: number;
  /** Events are gone: load the state again from its source. */
  onGap?: (gap: Gap) => void;
}

export function useStreamEvents(gateway: string, settings: Settings): { events: StreamEvent[]; state: State } {
  const [events, setEvents] = useState<StreamEvent[]>([]);
  const [state, setState] = useState<State>({ state: "connecting" });
  const { keep = 100, ...options } = settings;
  // The newest functions of the caller, which differ in each render. New functions open no new stream.
  const latest = useRef(settings);
  latest.current = settings;
  const key = JSON.stringify([gateway, keep, options]);
  useEffect(() => {
    setEvents([]);
    const stream = follow(gateway, {
      ...options,
      token: options.token && (() => latest.current.token!()),
      onEvent: (event) => setEvents((before) => [...before, event].slice(-keep)),
      onGap: (gap) => latest.current.onGap?.(gap),
      onState: setState,
    });
    return () => stream.close();
  }, [key]);
  return { events, state };
}
