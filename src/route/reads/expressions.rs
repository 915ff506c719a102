//! Expressions over groups, with the types and casts that PostgreSQL would give them.

use crate::base::{Reason, Refusal, SqlState};
use crate::merge::{
    Collation, Comparison, Expression, Format, Function, NumericModifier, Operator, Type, Value,
};
use crate::sql::{Computed, LiteralKind, Value as Place};

use super::not_merged;
use crate::route::keys::KeySource;

/// Gives constants and parameters their values.
pub(super) struct Builder<'a> {
    source: &'a KeySource<'a>,
    param_oids: &'a [u32],
    pub collation: Collation,
    /// Of the row that is computed over: group keys, then aggregates.
    columns: Vec<Type>,
    keys: usize,
}

/// A constant without a type of its own takes that of what it meets.
enum Typed {
    Known(Expression),
    /// A string or NULL.
    Unknown(Option<Vec<u8>>),
}

impl<'a> Builder<'a> {
    pub fn new(source: &'a KeySource<'a>, param_oids: &'a [u32], collation: Collation) -> Builder<'a> {
        Builder { source, param_oids, collation, columns: Vec::new(), keys: 0 }
    }

    /// The types of group keys and of aggregates.
    pub fn over(&mut self, keys: &[Type], aggregates: &[Type]) {
        self.columns = [keys, aggregates].concat();
        self.keys = keys.len();
    }

    pub fn expression(&self, it: &Computed) -> Result<Expression, Refusal> {
        let typed = self.typed(it)?;
        self.known(typed, Type::Text)
    }

    pub fn type_of(&self, it: &Expression) -> Result<Type, Refusal> {
        it.resolve(&self.columns)
    }

    /// The value of LIMIT or OFFSET; `None` is NULL.
    pub fn bigint(&self, place: &Place) -> Result<Option<i64>, Refusal> {
        let odd = || not_merged("LIMIT or OFFSET with a value of this form");
        let value = match place {
            Place::Null => return Ok(None),
            Place::Bool(_) => return Err(odd()),
            Place::Literal { index, negative, .. } => {
                let value = self.literal_text(*index)?.trim().parse::<i64>().map_err(|_| odd())?;
                return Ok(Some(if *negative { -value } else { value }));
            }
            Place::Param { number, .. } => self.param(*number)?,
        };
        match self.known(value, Type::Int8)? {
            Expression::Constant(_, None) => Ok(None),
            Expression::Constant(_, Some(Value::Int2(it))) => Ok(Some(it.into())),
            Expression::Constant(_, Some(Value::Int4(it))) => Ok(Some(it.into())),
            Expression::Constant(_, Some(Value::Int8(it))) => Ok(Some(it)),
            _ => Err(odd()),
        }
    }

    /// A string constant, as the delimiter of `string_agg`; `None` is NULL.
    pub fn text(&self, it: &Computed) -> Result<Option<Box<[u8]>>, Refusal> {
        match self.typed(it)? {
            Typed::Unknown(bytes) => Ok(bytes.map(Into::into)),
            Typed::Known(Expression::Constant(_, Some(Value::Text(text)))) => Ok(Some(text)),
            Typed::Known(Expression::Constant(_, Some(Value::Bytea(bytes)))) => Ok(Some(bytes)),
            Typed::Known(Expression::Constant(_, None)) => Ok(None),
            Typed::Known(_) => Err(not_merged("string_agg with a delimiter that is no constant")),
        }
    }

    fn literal_text(&self, index: u32) -> Result<std::borrow::Cow<'a, str>, Refusal> {
        let literal = self.source.literals.get(index as usize);
        let value = literal.and_then(|it| it.value(self.source.text));
        value.ok_or_else(|| not_merged("a constant of this form"))
    }

    fn literal(&self, index: u32, negative: bool) -> Result<Typed, Refusal> {
        let text = self.literal_text(index)?;
        let kind = self.source.literals.get(index as usize).map(|it| it.kind);
        let of = match kind {
            Some(LiteralKind::Integer | LiteralKind::Float) => number_type(&text),
            _ => return Ok(Typed::Unknown(Some(text.as_bytes().to_vec()))),
        };
        let signed = if negative { format!("-{text}") } else { text.into_owned() };
        let value = Value::decode(of, Format::Text, signed.as_bytes())?;
        Ok(Typed::Known(Expression::Constant(of, Some(value))))
    }

    fn param(&self, number: u16) -> Result<Typed, Refusal> {
        let at = usize::from(number).checked_sub(1);
        let params = self.source.params.ok_or_else(|| no_param(number))?;
        let at = at.filter(|it| *it < params.values.len()).ok_or_else(|| no_param(number))?;
        let declared = params.oids.get(at).copied().filter(|it| *it != 0);
        let oid = declared.or_else(|| self.param_oids.get(at).copied()).unwrap_or(0);
        let of = Type::from_oid(oid);
        let binary = match params.formats {
            [] => false,
            [all] => *all == 1,
            each => each.get(at) == Some(&1),
        };
        let format = if binary { Format::Binary } else { Format::Text };
        let value = params.values[at].map(|it| Value::decode(of, format, it)).transpose()?;
        Ok(Typed::Known(Expression::Constant(of, value)))
    }

    fn known(&self, it: Typed, of: Type) -> Result<Expression, Refusal> {
        match it {
            Typed::Known(it) => Ok(it),
            Typed::Unknown(None) => Ok(Expression::Constant(of, None)),
            Typed::Unknown(Some(bytes)) => {
                Ok(Expression::Constant(of, Some(Value::decode(of, Format::Text, &bytes)?)))
            }
        }
    }

    /// Of several branches or sides: what has no type takes that of the first that has one.
    fn alike(&self, them: &[Computed]) -> Result<Vec<Expression>, Refusal> {
        let typed = them.iter().map(|it| self.typed(it)).collect::<Result<Vec<_>, _>>()?;
        let first = typed.iter().find_map(|it| match it {
            Typed::Known(it) => Some(self.type_of(it)),
            Typed::Unknown(_) => None,
        });
        let of = first.transpose()?.unwrap_or(Type::Text);
        typed.into_iter().map(|it| self.known(it, of)).collect()
    }

    fn pair(&self, a: &Computed, b: &Computed) -> Result<(Box<Expression>, Box<Expression>), Refusal> {
        let mut both = self.alike(&[a.clone(), b.clone()])?;
        let b = both.pop().ok_or_else(|| not_merged("an operator without its sides"))?;
        let a = both.pop().ok_or_else(|| not_merged("an operator without its sides"))?;
        Ok((Box::new(a), Box::new(b)))
    }

    fn conditions(&self, them: &[Computed]) -> Result<Vec<Expression>, Refusal> {
        them.iter().map(|it| self.condition(it)).collect()
    }

    fn condition(&self, it: &Computed) -> Result<Expression, Refusal> {
        let typed = self.typed(it)?;
        self.known(typed, Type::Bool)
    }

    fn branches(&self, them: &[Computed]) -> Result<Vec<Expression>, Refusal> {
        Expression::unify(self.alike(them)?, &self.columns)
    }

    fn typed(&self, it: &Computed) -> Result<Typed, Refusal> {
        Ok(Typed::Known(match it {
            Computed::Key(at) => Expression::Column(*at),
            Computed::Aggregate(at) => Expression::Column(self.keys + at),
            Computed::Literal { index, negative } => return self.literal(*index, *negative),
            Computed::Param(number) => return self.param(*number),
            Computed::Null => return Ok(Typed::Unknown(None)),
            Computed::Bool(it) => Expression::Constant(Type::Bool, Some(Value::Bool(*it))),
            Computed::Operator(name, left, right) => self.operator(name, left.as_deref(), right)?,
            Computed::And(them) => Expression::And(self.conditions(them)?),
            Computed::Or(them) => Expression::Or(self.conditions(them)?),
            Computed::Not(it) => Expression::Not(Box::new(self.condition(it)?)),
            Computed::IsNull(it) => Expression::IsNull(Box::new(self.expression(it)?)),
            Computed::Distinct(not, a, b) => {
                let (a, b) = self.pair(a, b)?;
                let kind = if *not { Comparison::NotDistinctFrom } else { Comparison::DistinctFrom };
                Expression::Compare(kind, a, b, self.collation)
            }
            Computed::Case(whens, otherwise) => self.case(whens, otherwise.as_deref())?,
            Computed::Coalesce(them) => Expression::Coalesce(self.branches(them)?),
            Computed::NullIf(a, b) => {
                let (a, b) = self.pair(a, b)?;
                Expression::NullIf(a, b, self.collation)
            }
            Computed::Greatest(them) => Expression::Greatest(self.branches(them)?, self.collation),
            Computed::Least(them) => Expression::Least(self.branches(them)?, self.collation),
            Computed::Cast(it, name, modifiers) => self.cast(it, name, modifiers)?,
            Computed::Call(name, args) => self.call(name, args)?,
        }))
    }

    fn operator(&self, name: &str, left: Option<&Computed>, right: &Computed) -> Result<Expression, Refusal> {
        let Some(left) = left else {
            let value = Box::new(self.expression(right)?);
            return match name {
                "-" => Ok(Expression::Negate(value)),
                "+" => Ok(*value),
                _ => Err(no_operator(name)),
            };
        };
        let arithmetic = match name {
            "+" => Some(Operator::Add),
            "-" => Some(Operator::Subtract),
            "*" => Some(Operator::Multiply),
            "/" => Some(Operator::Divide),
            "%" => Some(Operator::Modulo),
            _ => None,
        };
        let (a, b) = self.pair(left, right)?;
        if let Some(operator) = arithmetic {
            return Ok(Expression::Arithmetic(operator, a, b));
        }
        let comparison = match name {
            "=" => Comparison::Equal,
            "<>" | "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            "||" => return Ok(Expression::Concat(a, b)),
            _ => return Err(no_operator(name)),
        };
        Ok(Expression::Compare(comparison, a, b, self.collation))
    }

    fn case(
        &self,
        whens: &[(Computed, Computed)],
        otherwise: Option<&Computed>,
    ) -> Result<Expression, Refusal> {
        let tests = whens.iter().map(|it| self.condition(&it.0)).collect::<Result<Vec<_>, _>>()?;
        // Without ELSE the value is NULL, of the type of the others.
        let last = otherwise.cloned().unwrap_or(Computed::Null);
        let all: Vec<Computed> = whens.iter().map(|it| it.1.clone()).chain([last]).collect();
        let mut branches = self.branches(&all)?;
        let otherwise = branches.pop().map(Box::new);
        Ok(Expression::Case(tests.into_iter().zip(branches).collect(), otherwise))
    }

    fn cast(&self, it: &Computed, name: &str, modifiers: &[u32]) -> Result<Expression, Refusal> {
        let to =
            type_by_name(name).ok_or_else(|| not_merged(&format!("a cast of an aggregate to {name}")))?;
        let numbers = modifiers.iter().map(|it| self.literal_text(*it)).collect::<Result<Vec<_>, _>>()?;
        let numbers: Vec<i32> = numbers.iter().filter_map(|it| it.parse().ok()).collect();
        let modifier = match (to, &numbers[..]) {
            (_, []) => None,
            (Type::Numeric, [precision]) => Some(NumericModifier { precision: *precision, scale: 0 }),
            (Type::Numeric, [precision, scale]) => {
                Some(NumericModifier { precision: *precision, scale: *scale })
            }
            _ => return Err(not_merged(&format!("a cast of an aggregate to {name} with a modifier"))),
        };
        match (self.typed(it)?, modifier) {
            (it @ Typed::Unknown(_), None) => self.known(it, to),
            (it, modifier) => Ok(Expression::Cast(Box::new(self.known(it, Type::Text)?), to, modifier)),
        }
    }

    fn call(&self, name: &str, args: &[Computed]) -> Result<Expression, Refusal> {
        let unknown = || not_merged(&format!("function {name}() of an aggregate"));
        let function = Function::by_name(name).ok_or_else(unknown)?;
        match args {
            [it] => Ok(Expression::Call(function, Box::new(self.expression(it)?), None)),
            [it, decimals] if matches!(function, Function::Round | Function::Trunc) => {
                let (it, decimals) = (self.expression(it)?, self.expression(decimals)?);
                Ok(Expression::Call(function, Box::new(it), Some(Box::new(decimals))))
            }
            _ => Err(unknown()),
        }
    }
}

/// The type that the grammar gives a number (`make_const` in parse_node.c).
fn number_type(text: &str) -> Type {
    if text.parse::<i32>().is_ok() {
        Type::Int4
    } else if text.parse::<i64>().is_ok() {
        Type::Int8
    } else {
        Type::Numeric
    }
}

/// By the name in `pg_type`.
fn type_by_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int2" => Type::Int2,
        "int4" => Type::Int4,
        "int8" => Type::Int8,
        "float4" => Type::Float4,
        "float8" => Type::Float8,
        "numeric" => Type::Numeric,
        "text" => Type::Text,
        "varchar" => Type::Varchar,
        "date" => Type::Date,
        "timestamp" => Type::Timestamp,
        "timestamptz" => Type::Timestamptz,
        _ => return None,
    })
}

fn no_operator(name: &str) -> Refusal {
    not_merged(&format!("operator {name} on an aggregate"))
}

fn no_param(number: u16) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState("42P02"), format!("there is no parameter ${number}"))
}
