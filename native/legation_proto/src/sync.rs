//! Locks that are held for microseconds, and threads that must not be without a processor for longer.
//!
//! Whoever waits for a mutex in the kernel comes back when its scheduler has a processor for it, which takes milliseconds where there are
//! more threads than processors: a thousand times what the lock was held for. So one looks again and again for a while before that.
//! Who holds a lock doesn't wait for anything but another lock.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// How often a lock is looked at, with pauses in between that grow up to 64 times the processor's own: about a quarter of a millisecond.
const LOOKS: u32 = 128;
const PAUSES_MAX_LOG2: u32 = 6;

/// A panic under a lock is caught by the driver; what it left is consistent enough to end the session with.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    lock_soon(mutex).unwrap_or_else(|| mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// None: whoever has it doesn't run, or holds it for long.
pub fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for look in 0..LOOKS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                (0..1 << look.min(PAUSES_MAX_LOG2)).for_each(|_| std::hint::spin_loop());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stays_held_is_given_up_and_one_that_was_poisoned_is_taken() {
        let mutex = Mutex::new(1);
        let held = lock(&mutex);
        assert!(lock_soon(&mutex).is_none());
        drop(held);
        assert_eq!(lock_soon(&mutex).as_deref(), Some(&1));
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _held = lock(&mutex);
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(panics.join().is_err());
        });
        assert_eq!(lock_soon(&mutex).as_deref(), Some(&1));
        assert_eq!(*lock(&mutex), 1);
    }

    #[test]
    fn who_waits_gets_the_lock_when_it_is_free() {
        let mutex = Mutex::new(0);
        let held = lock(&mutex);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| *lock(&mutex) += 1);
            drop(held);
            waits.join().unwrap();
        });
        assert_eq!(*lock(&mutex), 1);
    }
}
