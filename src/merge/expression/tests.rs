use super::*;

fn int(it: i32) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Int4, Some(Value::Int4(it))))
}

fn big(it: i64) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Int8, Some(Value::Int8(it))))
}

fn numeric(it: &str) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Numeric, Some(Value::Numeric(it.parse().unwrap()))))
}

fn float(it: f64) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Float8, Some(Value::Float8(it))))
}

fn text(it: &str) -> Box<Expression> {
    Box::new(Expression::Constant(Type::Text, Some(Value::Text(it.as_bytes().into()))))
}

fn null(of: Type) -> Box<Expression> {
    Box::new(Expression::Constant(of, None))
}

fn truth(it: Option<bool>) -> Expression {
    Expression::Constant(Type::Bool, it.map(Value::Bool))
}

/// Type and text of the result, or SQLSTATE and message of the error.
fn result(expression: &Expression) -> String {
    let shown = || {
        let of = expression.resolve(&[])?;
        let value = expression.evaluate::<[Option<Value>]>(&[])?;
        if let Some(it) = &value {
            assert_eq!(it.type_of(), of, "{expression:?}");
        }
        Ok::<_, Refusal>(format!("{of} {}", value.map_or(Ok("NULL".to_owned()), |it| it.text())?))
    };
    shown().unwrap_or_else(|it| format!("{} {}", it.state().0, it.message()))
}

#[test]
fn operators_answer_as_postgres_does() {
    let check = |a: Box<Expression>, operator, b: Box<Expression>, want: &str| {
        assert_eq!(result(&Expression::Arithmetic(operator, a, b)), want);
    };
    check(int(7), Operator::Divide, int(-2), "integer -3");
    check(int(7), Operator::Modulo, int(-2), "integer 1");
    check(int(i32::MAX), Operator::Add, int(1), "22003 integer out of range");
    check(int(i32::MIN), Operator::Divide, int(-1), "22003 integer out of range");
    check(int(i32::MIN), Operator::Modulo, int(-1), "integer 0");
    check(int(i32::MAX), Operator::Add, big(1), "bigint 2147483648");
    check(big(i64::MAX), Operator::Multiply, int(2), "22003 bigint out of range");
    check(int(1), Operator::Divide, int(0), "22012 division by zero");
    check(int(1), Operator::Divide, numeric("3"), "numeric 0.33333333333333333333");
    check(numeric("1.5"), Operator::Multiply, float(2.0), "double precision 3");
    check(float(1e308), Operator::Multiply, float(10.0), "22003 value out of range: overflow");
    check(float(1e-308), Operator::Multiply, float(1e-308), "22003 value out of range: underflow");
    check(float(1.0), Operator::Divide, float(0.0), "22012 division by zero");
    check(int(1), Operator::Add, null(Type::Int8), "bigint NULL");
    assert!(result(&Expression::Arithmetic(Operator::Add, text("a"), int(1))).starts_with("0A000"));
    assert!(result(&Expression::Arithmetic(Operator::Modulo, float(1.0), int(1))).starts_with("0A000"));
    assert_eq!(result(&Expression::Negate(int(i32::MIN))), "22003 integer out of range");
}

#[test]
fn logic_has_three_values_and_stops_where_it_is_decided() {
    let failing = Expression::Compare(
        Comparison::Equal,
        Box::new(Expression::Arithmetic(Operator::Divide, int(1), int(0))),
        int(1),
        Collation::Deterministic,
    );
    let and = |them| result(&Expression::And(them));
    let or = |them| result(&Expression::Or(them));
    assert_eq!(and(vec![truth(None), truth(Some(false))]), "boolean f");
    assert_eq!(and(vec![truth(None), truth(Some(true))]), "boolean NULL");
    assert_eq!(or(vec![truth(None), truth(Some(true))]), "boolean t");
    assert_eq!(or(vec![truth(None), truth(Some(false))]), "boolean NULL");
    assert_eq!(and(vec![truth(Some(false)), failing.clone()]), "boolean f");
    assert_eq!(or(vec![truth(Some(true)), failing.clone()]), "boolean t");
    assert_eq!(and(vec![truth(None), failing]), "22012 division by zero");
    assert_eq!(result(&Expression::Not(Box::new(truth(None)))), "boolean NULL");
    assert_eq!(result(&Expression::IsNull(null(Type::Int4))), "boolean t");
}

#[test]
fn comparisons_cross_number_types_and_know_null() {
    let check = |comparison, a, b, want: &str| {
        assert_eq!(result(&Expression::Compare(comparison, a, b, Collation::Deterministic)), want);
    };
    check(Comparison::Equal, int(1), numeric("1.00"), "boolean t");
    check(Comparison::Less, numeric("0.1"), float(0.1), "boolean f");
    check(Comparison::GreaterOrEqual, float(f64::NAN), float(f64::INFINITY), "boolean t");
    check(Comparison::NotEqual, int(1), null(Type::Int4), "boolean NULL");
    check(Comparison::DistinctFrom, int(1), null(Type::Int4), "boolean t");
    check(Comparison::NotDistinctFrom, null(Type::Int4), null(Type::Int4), "boolean t");
    check(Comparison::Equal, text("a"), text("a"), "boolean t");
    let less = Expression::Compare(Comparison::Less, text("a"), text("b"), Collation::Deterministic);
    assert!(result(&less).starts_with("0A000"), "the collation is not known");
    let less = Expression::Compare(Comparison::Less, text("a"), text("b"), Collation::Bytes);
    assert_eq!(result(&less), "boolean t");
}

#[test]
fn conditionals_pick_and_unify() {
    let unify = |them: Vec<Box<Expression>>| {
        Expression::unify(them.into_iter().map(|it| *it).collect(), &[]).unwrap()
    };
    let coalesce = Expression::Coalesce(unify(vec![null(Type::Numeric), int(0)]));
    assert_eq!(result(&coalesce), "numeric 0");
    assert!(result(&Expression::Coalesce(vec![*int(1), *numeric("1")])).starts_with("0A000"));
    assert_eq!(
        result(&Expression::Greatest(
            unify(vec![int(3), null(Type::Int4), big(5)]),
            Collation::Deterministic
        )),
        "bigint 5"
    );
    assert_eq!(result(&Expression::Least(vec![*null(Type::Int4)], Collation::Deterministic)), "integer NULL");
    assert_eq!(result(&Expression::NullIf(int(1), numeric("1.0"), Collation::Unknown)), "integer NULL");
    assert_eq!(result(&Expression::NullIf(int(1), null(Type::Int4), Collation::Unknown)), "integer 1");
    let case = |when| Expression::Case(vec![(truth(when), *int(1))], Some(int(2)));
    assert_eq!(
        (result(&case(Some(true))), result(&case(None))),
        ("integer 1".to_owned(), "integer 2".to_owned())
    );
    assert_eq!(result(&Expression::Case(vec![(truth(None), *int(1))], None)), "integer NULL");
}

#[test]
fn casts_and_functions_round_as_postgres_does() {
    let cast = |it, to, modifier| result(&Expression::Cast(it, to, modifier));
    assert_eq!(cast(numeric("2.5"), Type::Int4, None), "integer 3");
    assert_eq!(cast(float(2.5), Type::Int4, None), "integer 2");
    assert_eq!(cast(float(3e9), Type::Int4, None), "22003 integer out of range");
    assert_eq!(cast(numeric("NaN"), Type::Int4, None), "0A000 cannot convert NaN to integer");
    assert_eq!(cast(float(0.1), Type::Numeric, None), "numeric 0.1");
    assert_eq!(cast(float(1e20), Type::Numeric, None), "numeric 100000000000000000000");
    assert_eq!(cast(float(1e39), Type::Float4, None), "22003 value out of range: overflow");
    let modifier = NumericModifier { precision: 5, scale: 2 };
    assert_eq!(NumericModifier::from_type_mod((5 << 16 | 2) + 4), Some(modifier));
    assert_eq!(cast(numeric("123.455"), Type::Numeric, Some(modifier)), "numeric 123.46");
    assert_eq!(cast(numeric("999.995"), Type::Numeric, Some(modifier)), "22003 numeric field overflow");
    assert_eq!(cast(Box::new(truth(Some(true))), Type::Text, None), "text true");
    assert_eq!(cast(text(" 42 "), Type::Int4, None), "integer 42");
    assert_eq!(cast(text("4x"), Type::Numeric, None).split(' ').next(), Some("0A000"));
    assert_eq!(cast(text("4.5"), Type::Int4, None), "22P02 invalid input syntax for type integer: \"4.5\"");
    let call = |function, it, decimals| result(&Expression::Call(function, it, decimals));
    assert_eq!(call(Function::Round, numeric("2.345"), Some(int(2))), "numeric 2.35");
    assert_eq!(call(Function::Round, float(2.5), None), "double precision 2");
    assert_eq!(call(Function::Ceil, int(2), None), "double precision 2");
    assert_eq!(call(Function::Abs, int(-2), None), "integer 2");
    assert_eq!(call(Function::Abs, int(i32::MIN), None), "22003 integer out of range");
    assert_eq!(call(Function::Floor, numeric("-0.5"), None), "numeric -1");
    assert_eq!(result(&Expression::Concat(text("a"), text("b"))), "text ab");
}

#[test]
fn what_is_too_deep_is_refused_before_it_is_walked() {
    let mut it = *int(1);
    for _ in 0..DEPTH_MAX + 1 {
        it = Expression::Negate(Box::new(it));
    }
    assert_eq!(it.resolve(&[]).unwrap_err().state().0, "54001");
    assert_eq!(Expression::Column(3).resolve(&[Type::Int4]).unwrap_err().state().0, "XX000");
    assert!(matches!(Expression::Column(0).resolve(&[Type::Other(114)]), Ok(Type::Other(114))));
    let other = Expression::IsNull(Box::new(Expression::Column(0)));
    assert_eq!(other.resolve(&[Type::Other(114)]).unwrap_err().state().0, "0A000");
}
