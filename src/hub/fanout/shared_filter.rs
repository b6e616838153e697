//! Shared filters: groups of one worker that have the same filter share its answers, so that each
//! event is checked once for all of them.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use crate::model::{event::Event, event_id::EventId, filter::Filter};

/// Filter of one or more groups, with its answers for the newest events.
#[derive(Debug)]
pub(crate) struct SharedFilter {
    filter: Filter,
    /// Number of groups with this filter.
    groups: Cell<usize>,
    /// Answers in order of their ids: true if the filter shows the event. Empty until two groups
    /// have the filter.
    answers: RefCell<VecDeque<(EventId, bool)>>,
}

/// Number of answers that are kept: groups are checked one after the other, so that few events
/// arrive in between.
const ANSWERS_MAX: usize = 128;
/// Memory for answers, in bytes.
pub(crate) const ANSWERS_MAX_BYTES: usize = ANSWERS_MAX * size_of::<(EventId, bool)>();

impl SharedFilter {
    /// Returns the filter.
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns true if the filter shows an event. Evaluates the filter, and increases
    /// `evaluations`, only if the answer is not known. An id never names another event, so an
    /// answer stays valid.
    pub(crate) fn shows(&self, event: &Event, evaluations: &mut u64) -> bool {
        let mut evaluate = || {
            *evaluations += 1;
            self.filter.matches(|key| event.attribute(key))
        };
        if self.groups.get() < 2 {
            return evaluate();
        }
        let mut answers = self.answers.borrow_mut();
        match answers.binary_search_by_key(&event.id, |(id, _)| *id) {
            Ok(at) => answers.get(at).is_some_and(|(_, is_shown)| *is_shown),
            // A replay of old events leaves the answers for the newest ones.
            Err(0) if ANSWERS_MAX <= answers.len() => evaluate(),
            Err(mut at) => {
                let is_shown = evaluate();
                if ANSWERS_MAX <= answers.len() {
                    answers.pop_front();
                    at -= 1;
                }
                answers.insert(at, (event.id, is_shown));
                is_shown
            }
        }
    }
}

/// Filters of the groups of one worker.
#[derive(Debug)]
pub(crate) struct SharedFilters {
    /// Largest number of different filters: each can be evaluated for each event.
    max: usize,
    all: HashMap<Filter, Rc<SharedFilter>>,
}

impl SharedFilters {
    /// Creates the filters of a worker without groups.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, all: HashMap::new() }
    }

    /// Returns true if a group can have `filter` within the limit.
    pub(crate) fn has_room(&self, filter: &Filter) -> bool {
        self.all.len() < self.max || self.all.contains_key(filter)
    }

    /// Returns the filter for a new group.
    pub(crate) fn acquire(&mut self, filter: Filter) -> Rc<SharedFilter> {
        let shared = self.all.entry(filter).or_insert_with_key(|filter| {
            let (filter, groups) = (filter.clone(), Cell::default());
            Rc::new(SharedFilter { filter, groups, answers: RefCell::default() })
        });
        shared.groups.set(shared.groups.get() + 1);
        Rc::clone(shared)
    }

    /// Releases the filter of a group that is removed.
    pub(crate) fn release(&mut self, shared: &SharedFilter) {
        let left = shared.groups.get().saturating_sub(1);
        shared.groups.set(left);
        if left == 0 {
            self.all.remove(&shared.filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{event::Draft, message::Message};

    fn event(sequence: u64, attributes: &[&str]) -> Arc<Event> {
        let attributes = attributes.iter().map(|key| ((*key).to_owned(), String::new())).collect();
        let message = Message { attributes, ..Message::for_tests("orders", Vec::new()) };
        Draft::new(message).seal(EventId { time_ms: 1, sequence })
    }

    proptest! {
        /// Groups at any places of a log of events, each with jumps forth and back.
        #[test]
        fn a_shared_answer_equals_a_fresh_evaluation(
            has in prop::collection::vec(any::<(bool, bool)>(), 400),
            reads in prop::collection::vec((0..400_usize, 1..200_usize), 1..20),
        ) {
            let filter = Filter::parse("attributes:a AND NOT attributes:b").unwrap();
            let mut filters = SharedFilters::new(1);
            let shared = [0, 1].map(|_| filters.acquire(filter.clone()));
            let events: Vec<_> = (1..).zip(&has).map(|(id, (a, b))| {
                let keys = [("a", *a), ("b", *b)];
                let keys: Vec<_> = keys.iter().filter(|(_, is)| *is).map(|(key, _)| *key).collect();
                event(id, &keys)
            }).collect();
            let mut evaluations = 0;
            for (begin, length) in reads {
                for (event, (a, b)) in events.iter().zip(&has).skip(begin).take(length) {
                    prop_assert_eq!(shared[0].shows(event, &mut evaluations), *a && !*b);
                    prop_assert!(shared[0].answers.borrow().len() <= ANSWERS_MAX);
                }
            }
        }
    }

    #[test]
    fn the_newest_events_are_checked_once_for_several_groups() {
        let mut filters = SharedFilters::new(1);
        let one = filters.acquire(Filter::parse("attributes:a").unwrap());
        let events: Vec<_> = (1..=300).map(|id| event(id, &["a"])).collect();
        let evaluations = |filter: &SharedFilter, events: &[Arc<Event>]| {
            let mut count = 0;
            assert!(events.iter().all(|event| filter.shows(event, &mut count)));
            count
        };
        assert_eq!([evaluations(&one, &events), evaluations(&one, &events)], [300, 300]);
        assert!(one.answers.borrow().is_empty(), "one group needs none");
        let two = filters.acquire(Filter::parse("(attributes:\"a\")").unwrap());
        assert!(Rc::ptr_eq(&one, &two));
        assert_eq!([evaluations(&one, &events), evaluations(&two, &events)], [300, 172]);
        assert!(!filters.has_room(&Filter::parse("attributes:b").unwrap()));
        assert!(filters.has_room(one.filter()));
        filters.release(&one);
        filters.release(&two);
        assert!(filters.all.is_empty());
    }
}
