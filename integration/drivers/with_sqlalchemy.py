"""SQLAlchemy's Core and ORM over psycopg, with nothing but the connection string: with_sqlalchemy.py URL"""

import datetime
import decimal
import sys
import threading

import sqlalchemy as sa
from sqlalchemy import exc, orm

from checks import Checks

# More than a pool has slots.
THREADS = 40
# Users of the shop that no other test touches.
FIRST_USER = 12_000_000


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "alchemy_authors"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
    born: orm.Mapped[datetime.date | None]
    version: orm.Mapped[int] = orm.mapped_column()
    books: orm.Mapped[list["Book"]] = orm.relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id"
    )
    __mapper_args__ = {"version_id_col": version}


class Book(Base):
    __tablename__ = "alchemy_books"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("alchemy_authors.id"))
    title: orm.Mapped[str]
    price: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(8, 2))
    tags: orm.Mapped[list[str]] = orm.mapped_column(sa.ARRAY(sa.String))
    extra: orm.Mapped[dict] = orm.mapped_column(sa.JSON)
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


class User(Base):
    """The shop's own table."""

    __tablename__ = "users"

    user_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: orm.Mapped[str]
    email: orm.Mapped[str]
    country: orm.Mapped[str] = orm.mapped_column(sa.CHAR(2))


def fails(check, what, error, run):
    try:
        run()
    except error as it:
        check.count += 1
        return it
    raise AssertionError(f"{what}: no {error.__name__}")


def connects_and_reads_the_catalog(engine, check):
    with engine.connect() as conn:
        check.equal("a constant", conn.execute(sa.select(1)).scalar(), 1)
        check.equal("a parameter", conn.execute(sa.text("SELECT :a"), {"a": "it's"}).scalar(), "it's")
    check.that("version", engine.dialect.server_version_info >= (11,))
    check.equal("schema", engine.dialect.default_schema_name, "public")


def orm_round_trips(engine, check):
    book = lambda n: Book(title=f"book {n}", price=decimal.Decimal(n) / 4, tags=["a", f"t{n}"], extra={"n": n})
    with orm.Session(engine) as session:
        for n in range(5):
            author = Author(name=f"author {n}", born=datetime.date(1900 + n, 1, 1))
            author.books = [book(10 * n + it) for it in range(n)]
            session.add(author)
        session.commit()
        check.that("keys came back", all(it.id for it in session.scalars(sa.select(Author))))
    with orm.Session(engine) as session:
        query = sa.select(Author).order_by(Author.id).options(orm.selectinload(Author.books))
        authors = session.scalars(query).all()
        check.equal("authors", [it.name for it in authors], [f"author {n}" for n in range(5)])
        for n, author in enumerate(authors):
            check.equal("born", author.born, datetime.date(1900 + n, 1, 1))
            check.equal("titles", [it.title for it in author.books], [f"book {10 * n + it}" for it in range(n)])
            for at, it in enumerate(author.books):
                number = 10 * n + at
                check.equal("price", it.price, decimal.Decimal(number) / 4)
                check.equal("tags", it.tags, ["a", f"t{number}"])
                check.equal("extra", it.extra, {"n": number})
        authors[1].name = "changed"
        del authors[4].books[0]
        session.delete(authors[0])
        session.commit()
    with orm.Session(engine) as session:
        joined = sa.select(Author.name, sa.func.count(Book.id)).outerjoin(Book).group_by(Author.name)
        counts = dict(session.execute(joined).all())
        check.equal("counts", counts, {"changed": 1, "author 2": 2, "author 3": 3, "author 4": 3})
        author = session.scalars(sa.select(Author).filter_by(name="author 3")).one()
        author.name = "undone"
        session.flush()
        session.rollback()
        check.equal("rolled back", author.name, "author 3")
        try:
            with session.begin_nested():
                session.add(Author(name="author 2"))
        except exc.IntegrityError as error:
            check.equal("SQLSTATE", error.orig.sqlstate, "23505")
        check.equal("goes on", session.scalar(sa.select(sa.func.count()).select_from(Author)), 4)
        session.commit()


def two_sessions_see_their_own(engine, check):
    with orm.Session(engine) as one, orm.Session(engine) as two:
        of_one = one.scalars(sa.select(Author).filter_by(name="author 2")).one()
        of_two = two.scalars(sa.select(Author).filter_by(name="author 2")).one()
        of_one.born = datetime.date(2000, 1, 1)
        one.commit()
        of_two.born = datetime.date(2001, 1, 1)
        # The version that it read is gone.
        fails(check, "a stale version", orm.exc.StaleDataError, two.commit)
        two.rollback()
        check.equal("the first one's", of_two.born, datetime.date(2000, 1, 1))


def many_rows_go_in_at_once(engine, check):
    """insertmanyvalues: one INSERT of a thousand rows, RETURNING keys in order."""
    with orm.Session(engine) as session:
        author = session.scalars(sa.select(Author).filter_by(name="changed")).one()
        rows = [
            {"author_id": author.id, "title": f"many {n}", "price": 1, "tags": [], "extra": {}} for n in range(2500)
        ]
        returned = session.scalars(sa.insert(Book).returning(Book.title, sort_by_parameter_order=True), rows).all()
        check.equal("returned in order", returned, [it["title"] for it in rows])
        session.commit()
        matching = sa.select(sa.func.count()).where(Book.title.like("many %"))
        check.equal("they are there", session.scalar(matching), 2500)
        gone = session.execute(sa.delete(Book).where(Book.title.like("many %"), Book.id % 2 == 0))
        check.equal("deleted and counted", gone.rowcount + session.scalar(matching), 2500)
        session.commit()


def pre_ping_finds_dead_connections(url, check):
    engine = sa.create_engine(url, pool_size=3, pool_pre_ping=True)
    for turn in range(3):
        with engine.connect() as conn:
            check.equal("before", conn.execute(sa.select(turn)).scalar(), turn)
            # The driver's connection breaks under the pool.
            conn.connection.dbapi_connection.pgconn.finish()
            conn.invalidate()
        with engine.connect() as conn:
            check.equal("after", conn.execute(sa.select(turn)).scalar(), turn)
    with engine.connect() as conn:
        raw = conn.connection.dbapi_connection
    raw.close()
    with engine.connect() as conn:
        check.that("another one", conn.connection.dbapi_connection is not raw)
        check.equal("works", conn.execute(sa.select(7)).scalar(), 7)
    engine.dispose()


def server_side_cursors_stream(engine, check):
    with engine.connect() as conn:
        streaming = conn.execution_options(stream_results=True, max_row_buffer=50)
        result = streaming.execute(sa.text("SELECT a FROM generate_series(1, 1000) a"))
        got = [it for part in result.partitions(100) for (it,) in part]
        check.equal("streamed", got, list(range(1, 1001)))
        result = streaming.execute(sa.text("SELECT a FROM generate_series(1, 1000) a"))
        check.equal("the first rows", [it[0] for it in result.fetchmany(3)], [1, 2, 3])
        result.close()
        check.equal("goes on", conn.execute(sa.select(1)).scalar(), 1)


def isolation_levels_are_set(url, check):
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        engine = sa.create_engine(url, isolation_level=level)
        with engine.connect() as conn:
            shown = conn.execute(sa.text("SHOW transaction_isolation")).scalar()
            check.equal("isolation", shown.upper(), level)
            check.equal("as told", conn.get_isolation_level(), level)
        engine.dispose()
    engine = sa.create_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        check.equal("autocommit", conn.execute(sa.select(1)).scalar(), 1)
        check.that("no transaction", conn.connection.dbapi_connection.info.transaction_status == 0)
    with engine.connect().execution_options(postgresql_readonly=True) as conn:
        check.equal("read only", conn.execute(sa.text("SHOW transaction_read_only")).scalar(), "on")
    with engine.connect() as conn:
        check.equal("not the next one", conn.execute(sa.text("SHOW transaction_read_only")).scalar(), "off")
    engine.dispose()


def threads_share_fewer_servers(url, check):
    engine = sa.create_engine(url, pool_size=THREADS, connect_args={"options": "-c work_mem=3MB"})
    problems, barrier = [], threading.Barrier(THREADS)

    def work(number):
        try:
            with engine.connect() as conn:
                barrier.wait(60)
                for turn in range(10):
                    value = conn.execute(sa.text("SELECT :n + :t"), {"n": number, "t": turn}).scalar()
                    conn.execute(sa.text(f"SET LOCAL lock_timeout = {number + 1000}"))
                    kept = conn.execute(sa.text("SHOW lock_timeout")).scalar()
                    memory = conn.execute(sa.text("SHOW work_mem")).scalar()
                    conn.commit()
                    if (value, kept, memory) != (number + turn, f"{number + 1000}ms", "3MB"):
                        problems.append((number, turn, value, kept, memory))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(it + 1,)) for it in range(THREADS)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    check.equal("threads", problems, [])
    engine.dispose()


def reflection_sees_the_tables(engine, check):
    inspector = sa.inspect(engine)
    names = inspector.get_table_names()
    check.that("tables", {"alchemy_authors", "alchemy_books"} <= set(names))
    columns = {it["name"]: it for it in inspector.get_columns("alchemy_books")}
    check.equal("columns", list(columns), ["id", "author_id", "title", "price", "tags", "extra"])
    check.equal("a type", str(columns["price"]["type"]), "NUMERIC(8, 2)")
    check.equal("key", inspector.get_pk_constraint("alchemy_books")["constrained_columns"], ["id"])
    foreign = inspector.get_foreign_keys("alchemy_books")[0]
    check.equal("foreign key", foreign["referred_table"], "alchemy_authors")
    reflected = sa.Table("alchemy_authors", sa.MetaData(), autoload_with=engine)
    check.equal("reflected", [it.name for it in reflected.columns], ["id", "name", "born", "version"])


def users_of_the_shop_by_key(engine, check):
    keys = [FIRST_USER + it for it in range(20)]
    for key in keys:
        with orm.Session(engine) as session:
            session.add(User(user_id=key, name=f"alchemy {key}", email="", country="NL"))
            session.commit()
        with orm.Session(engine) as session:
            user = session.get(User, key)
            check.equal("by key", user.name, f"alchemy {key}")
            user.email = "changed"
            session.commit()
            check.equal("changed", session.get(User, key, populate_existing=True).email, "changed")
    with orm.Session(engine) as session:
        found = session.scalars(sa.select(User).where(User.user_id.in_(keys))).all()
        check.equal("of all shards", sorted(it.user_id for it in found), keys)
        found[0].email = "with the others"
        session.flush()
        own = sa.select(sa.func.count()).where(User.user_id.in_(keys), User.email == "with the others")
        check.equal("its own write", session.scalar(own), 1)
        session.commit()
    with orm.Session(engine.execution_options(isolation_level="REPEATABLE READ")) as session:
        counted = lambda: session.scalar(sa.select(sa.func.max(User.user_id)).select_from(User))
        error = fails(check, "over all shards", exc.NotSupportedError, counted)
        check.equal("SQLSTATE", error.orig.sqlstate, "0A000")
        session.rollback()
        check.equal("goes on", session.get(User, keys[0]).name, f"alchemy {keys[0]}")


def main(text):
    check, url = Checks(), text.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(url, pool_size=5)
    with engine.connect() as conn:
        sharded = conn.execute(sa.text("SELECT current_database()")).scalar() == "shop"
    everywhere = [server_side_cursors_stream] if not sharded else []
    steps = [connects_and_reads_the_catalog, *everywhere]
    if sharded:
        steps.append(users_of_the_shop_by_key)
    else:
        Base.metadata.create_all(engine, tables=[Author.__table__, Book.__table__])
        steps += [orm_round_trips, two_sessions_see_their_own, many_rows_go_in_at_once, reflection_sees_the_tables]
    for step in steps:
        print(step.__name__, flush=True)
        step(engine, check)
    for step in (pre_ping_finds_dead_connections, isolation_levels_are_set, threads_share_fewer_servers):
        print(step.__name__, flush=True)
        step(url, check)
    if not sharded:
        Base.metadata.drop_all(engine, tables=[Author.__table__, Book.__table__])
        check.equal("dropped", sa.inspect(engine).has_table("alchemy_authors"), False)
    engine.dispose()
    check.finish()


main(sys.argv[1])
