/// Rows that are read for one page of a list, at most. Without a bound, a search for what is rare would read a whole table.
pub const MAX_ROWS_READ: u32 = 10_000;

/// A page of a list, whose filter may have passed over many rows.
#[derive(Clone, Debug)]
pub struct Search<T, C> {
    pub found: Vec<T>,
    /// The last row that was read, where the list goes on after it.
    pub read_until: Option<C>,
}
