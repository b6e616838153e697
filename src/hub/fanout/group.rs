//! Subscribers of the same topics.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
    rc::{Rc, Weak},
    task::Waker,
};

use slab::Slab;
use tokio::time::Instant;

use crate::{hub::topic_set::Topics, limits::budget::Claim};

/// Subscribers of the same topics. They are woken together, and those of them that are at the same
/// place are given the same bytes.
pub struct Group {
    number: u64,
    topics: Topics,
    places: RefCell<Slab<Place>>,
    /// How many of them wait.
    waiting: Cell<usize>,
    cohort: RefCell<Option<Weak<dyn Cohort>>>,
    /// Pays for what it takes.
    _claim: Claim,
}

/// What a waiting subscriber would have done when its topics ring, instead of its task being woken.
/// Neither may open or drop a subscriber.
pub trait Listener {
    /// Whether it can be called at all. Asked of many before any of them is called, so that the
    /// processor fetches what they are about at once and not one after the other.
    fn is_ready(&self) -> bool;

    /// Whether nothing is left to do. If not, the task is woken.
    fn call(&self, now: Instant) -> bool;
}

/// Those of a group that have all been given the same and do not wait themselves: somebody reads
/// for all of them.
pub trait Cohort {
    /// Gives what was published to at most so many of them. Returns to how many, and none when all
    /// of them were given all there was.
    fn give(&self, most: usize) -> Option<usize>;
}

/// A subscriber's waker stays for as long as the subscriber, since it hardly ever changes.
#[derive(Default)]
struct Place {
    waker: Option<Waker>,
    waits: Cell<bool>,
    listener: Option<Weak<dyn Listener>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("number", &self.number)
            .field("topics", &self.topics)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Group {
    pub(crate) fn new(number: u64, topics: Topics, claim: Claim) -> Self {
        Self {
            number,
            topics,
            places: RefCell::default(),
            waiting: Cell::default(),
            cohort: RefCell::default(),
            _claim: claim,
        }
    }

    /// Given to no other group.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Which topics its subscribers follow.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// How many there are.
    pub fn subscribers(&self) -> usize {
        self.places.borrow().len()
    }

    /// Has it called before anyone is rung for.
    pub fn set_cohort(&self, cohort: Weak<dyn Cohort>) {
        self.cohort.replace(Some(cohort));
    }

    pub(crate) fn cohort(&self) -> Option<Rc<dyn Cohort>> {
        self.cohort.borrow().as_ref()?.upgrade()
    }

    pub(crate) fn enter(&self) -> usize {
        self.places.borrow_mut().insert(Place::default())
    }

    /// Returns whether nobody is left.
    pub(crate) fn leave(&self, place: usize) -> bool {
        self.wait_no_more(place);
        let mut places = self.places.borrow_mut();
        places.try_remove(place);
        places.is_empty()
    }

    /// Wakes a subscriber when something rings for it.
    pub fn wait(&self, place: usize, waker: &Waker) {
        if let Some(place) = self.places.borrow_mut().get_mut(place) {
            self.set_waits(place, true);
            match &mut place.waker {
                Some(known) => known.clone_from(waker),
                None => place.waker = Some(waker.clone()),
            }
        }
    }

    pub(crate) fn wait_no_more(&self, place: usize) {
        self.places.borrow().get(place).inspect(|place| self.set_waits(place, false));
    }

    fn set_waits(&self, place: &Place, waits: bool) {
        let waited = place.waits.replace(waits);
        self.waiting.set(self.waiting.get() + usize::from(waits) - usize::from(waited));
    }

    pub(crate) fn listen(&self, place: usize, listener: Weak<dyn Listener>) {
        if let Some(place) = self.places.borrow_mut().get_mut(place) {
            place.listener = Some(listener);
        }
    }

    /// Above the places of all who wait; what closed streams have left counts too.
    pub(crate) fn places_max(&self) -> usize {
        if self.waiting.get() == 0 { 0 } else { self.places.borrow().capacity() }
    }

    /// Rings for those who wait at some places. Returns for how many. `ready` is empty before and
    /// after.
    pub(crate) fn ring(
        &self,
        places: Range<usize>,
        ready: &mut Vec<(usize, Rc<dyn Listener>)>,
    ) -> usize {
        let all = self.places.borrow();
        let mut rung_for = 0;
        for (at, place) in places.filter_map(|at| Some((at, all.get(at)?))) {
            if !place.waits.get() {
                continue;
            }
            rung_for += 1;
            match place.listener.as_ref().and_then(Weak::upgrade) {
                Some(listener) if listener.is_ready() => ready.push((at, listener)),
                _ => self.wake(place),
            }
        }
        if ready.is_empty() {
            return rung_for;
        }
        let now = Instant::now();
        for (at, listener) in ready.drain(..) {
            if !listener.call(now) {
                all.get(at).inspect(|place| self.wake(place));
            }
        }
        rung_for
    }

    fn wake(&self, place: &Place) {
        self.set_waits(place, false);
        if let Some(waker) = &place.waker {
            waker.wake_by_ref();
        }
    }
}
