//! What the shop sells, and how an administrator may change it.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::{
    domain::{
        FieldError,
        campaign::MAX_AMOUNT,
        text::{text_error, trimmed},
    },
    identifiers::ProductId,
};

/// The largest price, in won.
pub const MAX_PRICE: i64 = 1_000_000_000_000;

/// Whether a product is for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema, EnumString, IntoStaticStr, VariantArray)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum ProductStatus {
    /// It can be ordered.
    #[default]
    Selling,
    /// It cannot.
    Stopped,
}

crate::json::read_by_spelling!(ProductStatus);

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Its id.
    #[serde(rename = "productId")]
    pub id: ProductId,
    /// What it is called.
    pub name: String,
    /// Won for one.
    pub price: i64,
    /// How many are left.
    pub stock: i64,
    /// Whether it is for sale.
    pub status: ProductStatus,
    /// Whether an order with it has to carry `pay: true`.
    // Rows of `product_changes` that an older version wrote do not have it.
    #[serde(default)]
    pub payment_required: bool,
}

/// What an administrator says of a new product.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductTerms {
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// Won for one.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    pub price: i64,
    /// How many there are.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub stock: i64,
    /// Whether it is for sale; it is, when this is left out.
    #[serde(default)]
    pub status: ProductStatus,
    /// Whether an order with it has to carry `pay: true`; it need not, when this is left out.
    #[serde(default)]
    pub payment_required: bool,
}

impl ProductTerms {
    /// The terms as they are stored: the name trimmed.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.name = trimmed(&self.name).to_owned();
        self
    }

    pub fn errors(&self) -> Vec<FieldError> {
        let stock = (!(0..=MAX_AMOUNT).contains(&self.stock))
            .then(|| FieldError::new("stock", format!("expected 0 to {MAX_AMOUNT}")));
        [name_error(&self.name), price_error(self.price), stock].into_iter().flatten().collect()
    }
}

/// What an administrator changes of a product; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProductChange {
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// Won for one; orders that are placed keep their price.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    pub price: Option<i64>,
    /// How many come in; negative when they go out.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    pub stock_change: Option<i64>,
    /// Whether it is for sale.
    pub status: Option<ProductStatus>,
    /// Whether an order with it has to carry `pay: true`; orders that are placed are not affected.
    pub payment_required: Option<bool>,
}

/// Why a change cannot be applied to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductRejectReason {
    StockInsufficient,
    /// The stock would exceed [`MAX_AMOUNT`].
    StockTooLarge,
}

impl ProductChange {
    /// The change as it is stored: the name trimmed.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.name = self.name.map(|name| trimmed(&name).to_owned());
        self
    }

    /// The fields that are invalid for every product.
    pub fn errors(&self) -> Vec<FieldError> {
        if *self == Self::default() {
            return vec![FieldError::new(
                ".",
                "expected at least one of name, price, stockChange, status, paymentRequired",
            )];
        }
        let change = self.stock_change.filter(|change| !(-MAX_AMOUNT..=MAX_AMOUNT).contains(change));
        let change = change.map(|_| FieldError::new("stockChange", format!("expected -{MAX_AMOUNT} to {MAX_AMOUNT}")));
        let name = self.name.as_deref().and_then(name_error);
        [name, self.price.and_then(price_error), change].into_iter().flatten().collect()
    }

    pub fn apply(&self, product: Product) -> Result<Product, ProductRejectReason> {
        // Saturating, so that an extreme change is rejected below and does not wrap around.
        let stock = product.stock.saturating_add(self.stock_change.unwrap_or(0));
        if stock < 0 {
            return Err(ProductRejectReason::StockInsufficient);
        }
        if stock > MAX_AMOUNT {
            return Err(ProductRejectReason::StockTooLarge);
        }
        Ok(Product {
            id: product.id,
            name: self.name.clone().unwrap_or(product.name),
            price: self.price.unwrap_or(product.price),
            stock,
            status: self.status.unwrap_or(product.status),
            payment_required: self.payment_required.unwrap_or(product.payment_required),
        })
    }
}

fn name_error(name: &str) -> Option<FieldError> {
    text_error("name", name, 200)
}

fn price_error(price: i64) -> Option<FieldError> {
    let message = || format!("expected 0 to {MAX_PRICE} won");
    (!(0..=MAX_PRICE).contains(&price)).then(|| FieldError::new("price", message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| error.field.into_owned()).collect()
    }

    fn product(stock: i64) -> Product {
        let id = ProductId::try_from(1).expect("a valid id");
        let (name, status) = ("coffee".into(), ProductStatus::Selling);
        Product { id, name, price: 5_000, stock, status, payment_required: false }
    }

    #[test]
    fn each_wrong_field_of_a_product_is_named() {
        let wrong = |change: fn(&mut ProductTerms)| {
            let (name, status) = ("coffee".into(), ProductStatus::Selling);
            let mut terms = ProductTerms { name, price: 5_000, stock: 3, status, payment_required: false };
            change(&mut terms);
            fields(terms.errors())
        };
        assert_eq!(wrong(|_| ()), Vec::<String>::new());
        assert_eq!(wrong(|terms| terms.name = " ".into()), ["name"]);
        assert_eq!(wrong(|terms| terms.name = "커".repeat(200)), Vec::<String>::new());
        assert_eq!(wrong(|terms| terms.name = "커".repeat(201)), ["name"]);
        assert_eq!(wrong(|terms| terms.price = -1), ["price"]);
        assert_eq!(wrong(|terms| terms.price = MAX_PRICE + 1), ["price"]);
        assert_eq!(wrong(|terms| (terms.price, terms.stock) = (-1, -1)), ["price", "stock"]);
        assert_eq!(wrong(|terms| terms.stock = MAX_AMOUNT + 1), ["stock"]);
    }

    #[test]
    fn a_change_names_a_field_and_each_wrong_one_is_named() {
        let none = ProductChange::default();
        assert_eq!(fields(none.errors()), ["."]);
        let wrong = ProductChange {
            name: Some(String::new()),
            price: Some(-1),
            stock_change: Some(i64::MIN),
            status: Some(ProductStatus::Stopped),
            payment_required: Some(true),
        };
        assert_eq!(fields(wrong.errors()), ["name", "price", "stockChange"]);
        assert_eq!(ProductChange { stock_change: Some(-1), ..none }.errors(), []);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let change = ProductChange { price: Some(6_000), ..ProductChange::default() };
        assert_eq!(change.apply(product(3)), Ok(Product { price: 6_000, ..product(3) }));
        let change = ProductChange { status: Some(ProductStatus::Stopped), ..ProductChange::default() };
        assert_eq!(change.apply(product(3)), Ok(Product { status: ProductStatus::Stopped, ..product(3) }));
        let change = ProductChange { payment_required: Some(true), ..ProductChange::default() };
        assert_eq!(change.errors(), []);
        assert_eq!(change.apply(product(3)), Ok(Product { payment_required: true, ..product(3) }));
    }

    #[test]
    fn stock_stays_between_0_and_the_largest_amount() {
        let changed = |stock: i64, change: i64| {
            let change = ProductChange { stock_change: Some(change), ..ProductChange::default() };
            change.apply(product(stock)).map(|product| product.stock)
        };
        assert_eq!(changed(3, -3), Ok(0));
        assert_eq!(changed(3, -4), Err(ProductRejectReason::StockInsufficient));
        assert_eq!(changed(MAX_AMOUNT - 1, 1), Ok(MAX_AMOUNT));
        assert_eq!(changed(MAX_AMOUNT, 1), Err(ProductRejectReason::StockTooLarge));
    }
}
