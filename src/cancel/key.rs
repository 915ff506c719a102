//! How keys of clients are made.
//!
//! ```text
//! pid     0 | instance, 11 bits | number, 20 bits      the same in every protocol version
//! secret  32 random bits up to protocol 3.1, 256 from 3.2 on
//! ```
//! The instance costs the pid bits and the secret none: who knows a pid (NOTIFY tells it to others) has to
//! guess as many bits as for a server of PostgreSQL, and who does not, more than there. Guesses cost a
//! connection each, and are counted (`keyway_cancels_total{result="unknown"}`).

/// Which of the Keyways behind one address a client is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instance(u16);

const NUMBER_BITS: u32 = 20;

impl Instance {
    /// As many as clients need never know; 0 is no instance, so that no pid is 0.
    pub const MAX: u16 = (1 << (31 - NUMBER_BITS)) - 1;

    /// Any number is brought into 1 to `MAX`.
    pub fn new(number: u16) -> Instance {
        Instance(number.wrapping_sub(1) % Instance::MAX + 1)
    }

    pub fn of(pid: u32) -> Instance {
        Instance(((pid >> NUMBER_BITS) & u32::from(Instance::MAX)) as u16)
    }

    /// The pid of this instance's client `number`, of which the lower 20 bits count: there are more of them
    /// than `clients_max` may be.
    pub fn pid(self, number: u32) -> u32 {
        u32::from(self.0) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

/// Bytes of a client's secret.
pub fn secret_bytes(takes_long_keys: bool) -> usize {
    if takes_long_keys { 32 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_names_its_instance_and_is_positive() {
        for number in [1, 2, 1000, Instance::MAX] {
            let instance = Instance::new(number);
            assert_eq!(instance.number(), number);
            for client in [0, 1, (1 << 20) - 1, u32::MAX] {
                let pid = instance.pid(client);
                assert_eq!(Instance::of(pid), instance);
                assert!(i32::try_from(pid).is_ok_and(|it| it > 0), "{pid}");
            }
        }
        assert!((0..=u16::MAX).all(|it| (1..=Instance::MAX).contains(&Instance::new(it).number())));
    }
}
