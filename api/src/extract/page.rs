use axum::{Json, extract::FromRequestParts, http::request::Parts};
use dibs_common::db::Search;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Type},
    },
};

use super::{
    parameters::{borrowed, check_bounds, invalid, query_pairs},
    text::decode_query,
};
use crate::problem::ApiError;

pub const DEFAULT_PAGE_SIZE: u32 = 20;
pub const MAX_PAGE_SIZE: u32 = 100;

/// Which page of a list; `C` is the id of an item.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Page<C> {
    /// The last item of the page before.
    pub cursor: Option<C>,
    #[serde(default = "default_page_size")]
    limit: u32,
}

const fn default_page_size() -> u32 {
    DEFAULT_PAGE_SIZE
}

impl<C> Page<C> {
    /// How many rows to query. One more than the page holds shows whether there is a next page.
    pub const fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// How many items the page holds at most.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The response of [`Self::rows`] rows. `cursor` is the id of an item.
    pub fn list<T>(&self, mut items: Vec<T>, cursor: impl FnOnce(&T) -> C) -> Json<List<T, C>> {
        let limit = self.limit as usize;
        // A row more than asked for, instead of COUNT(*), which would read the whole list for each page.
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_next).map(cursor);
        Json(List { items, next_cursor })
    }

    /// The response of a search for [`Self::rows`] rows.
    pub fn list_search<T>(&self, search: Search<T, C>, cursor: impl FnOnce(&T) -> C) -> Json<List<T, C>> {
        let Search { found, read_until } = search;
        if found.len() > self.limit as usize { self.list(found, cursor) } else { self.list_until(found, read_until) }
    }

    /// The response of fewer items than the page holds, after a search that goes on at `cursor`.
    pub fn list_until<T>(&self, items: Vec<T>, cursor: Option<C>) -> Json<List<T, C>> {
        Json(List { items, next_cursor: cursor })
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T, C> {
    items: Vec<T>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<C>,
}

impl<C: PartialSchema> IntoParams for Page<C> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let optional = |name: &str, description: &str| {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
            parameter.required(Required::False).description(Some(description))
        };
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_PAGE_SIZE));
        let limit = limit.default(Some(DEFAULT_PAGE_SIZE.into()));
        vec![
            optional("cursor", "`nextCursor` of the page before.").schema(Some(C::schema())).build(),
            optional("limit", "At most so many items.").schema(Some(limit)).build(),
        ]
    }
}

/// Of a list that has no parameters but those of its page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

/// The query parameters of a list, checked: those of its page, and the others as a filter.
pub struct ListParams<F, C> {
    pub filter: F,
    pub page: Page<C>,
}

impl<F: DeserializeOwned, C: DeserializeOwned, S: Sync> FromRequestParts<S> for ListParams<F, C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = query_pairs(parts);
        let pairs = borrowed(&pairs);
        // Apart, because a filter refuses parameters that it does not know, which serde cannot do of flattened fields.
        let (page, filter): (Vec<_>, Vec<_>) = pairs.iter().partition(|(name, _)| matches!(*name, "cursor" | "limit"));
        match (decode_query::<Page<C>>(&page), decode_query(&filter)) {
            (Ok(page), Ok(filter)) if (1..=MAX_PAGE_SIZE).contains(&page.limit) => {
                check_bounds(parts, &pairs)?;
                Ok(Self { filter, page })
            }
            _ => Err(ApiError(invalid(parts, None, &pairs))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        status: Option<String>,
    }

    async fn read(query: &str) -> Result<ListParams<Filter, u64>, String> {
        let (mut parts, ()) = Request::builder().uri(format!("/list{query}")).body(()).expect("a request").into_parts();
        let read = ListParams::from_request_parts(&mut parts, &()).await;
        read.map_err(|ApiError(error)| error.to_string())
    }

    #[tokio::test]
    async fn a_page_has_20_items_unless_the_caller_says_otherwise() {
        let read_page = async |query| read(query).await.expect("parameters");
        let ListParams { filter, page } = read_page("").await;
        assert_eq!((filter.status, page.cursor, page.limit), (None, None, DEFAULT_PAGE_SIZE));
        let ListParams { filter, page } = read_page("?limit=2&status=a%20b&cursor=7").await;
        assert_eq!((filter.status.as_deref(), page.cursor, page.limit), (Some("a b"), Some(7), 2));
    }

    #[tokio::test]
    async fn wrong_and_unknown_parameters_are_refused() {
        for query in ["?limit=0", "?limit=101", "?limit=x", "?cursor=x", "?limit=1&limit=2", "?statu=x"] {
            assert!(read(query).await.is_err(), "{query}");
        }
    }

    #[test]
    fn only_a_page_with_a_next_one_has_a_cursor() {
        let page = Page { cursor: None, limit: 2 };
        assert_eq!(page.rows(), 3);
        let list = |rows: &[u64]| {
            let Json(List { items, next_cursor }) = page.list(rows.to_vec(), |row| *row);
            (items, next_cursor)
        };
        assert_eq!(list(&[]), (vec![], None));
        assert_eq!(list(&[1, 2]), (vec![1, 2], None));
        assert_eq!(list(&[1, 2, 3]), (vec![1, 2], Some(2)));
        let search = |found: &[u64], read_until| {
            let Json(List { items, next_cursor }) =
                page.list_search(Search { found: found.to_vec(), read_until }, |row| *row);
            (items, next_cursor)
        };
        assert_eq!(search(&[1], None), (vec![1], None));
        assert_eq!(search(&[1, 2], Some(9)), (vec![1, 2], Some(9)));
        assert_eq!(search(&[1, 2, 3], Some(9)), (vec![1, 2], Some(2)));
    }
}
