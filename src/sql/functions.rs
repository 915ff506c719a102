//! PostgreSQL's own functions that change nothing and whose answer does not depend on which server of a
//! shard gives it. A function that is not listed is taken to write (DESIGN invariant 6).
//!
//! The lists are made from `pg_proc` of PostgreSQL 15: names in `pg_catalog` of which every overload is
//! immutable or stable, without those that read the catalog, sequences, large objects, statistics, locks,
//! transaction ids or other tables, or tell which server or session answers, and without the support functions
//! of types, operators and index methods. The functions of versions 16 to 18 are added by hand.

/// How far a listed function's answer may differ from call to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    Immutable,
    /// Depends on settings or on the time of the transaction.
    Stable,
    /// Differs from row to row, and changes nothing.
    Volatile,
}

/// What is known of the built-in function `name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    pub volatility: Volatility,
    pub aggregate: bool,
}

/// The built-in function of this name, if it is on a list.
pub fn built_in(name: &str) -> Option<BuiltIn> {
    let lists = [
        (IMMUTABLE, Volatility::Immutable, false),
        (STABLE, Volatility::Stable, false),
        (VOLATILE, Volatility::Volatile, false),
        (AGGREGATES, Volatility::Immutable, true),
    ];
    let found = lists.iter().find(|(names, ..)| names.binary_search(&name).is_ok());
    found.map(|(_, volatility, aggregate)| BuiltIn { volatility: *volatility, aggregate: *aggregate })
}

/// Every overload is immutable.
#[rustfmt::skip]
const IMMUTABLE: &[&str] = &[
    "abbrev", "abs", "aclcontains", "acldefault", "aclinsert", "aclitemeq", "aclremove", "acos", "acosd",
    "acosh", "area", "array_append", "array_cat", "array_dims", "array_eq", "array_fill", "array_ge",
    "array_gt", "array_larger", "array_le", "array_length", "array_lower", "array_lt", "array_ndims",
    "array_ne", "array_position", "array_positions", "array_prepend", "array_remove", "array_replace",
    "array_reverse", "array_smaller", "array_sort", "array_to_tsvector", "array_upper", "arraycontained",
    "arraycontains", "arrayoverlap", "ascii", "asin", "asind", "asinh", "atan", "atan2", "atan2d", "atand",
    "atanh", "big5_to_euc_tw", "big5_to_mic", "big5_to_utf8", "bit", "bit_count", "bit_length", "bitand",
    "bitcat", "bitcmp", "biteq", "bitge", "bitgt", "bitle", "bitlt", "bitne", "bitnot", "bitor",
    "bitshiftleft", "bitshiftright", "bitxor", "bool", "bool_alltrue", "bool_anytrue", "booland_statefunc",
    "booleq", "boolge", "boolgt", "boolin", "boolle", "boollt", "boolne", "boolor_statefunc", "boolout",
    "boolsend", "bound_box", "box", "box_above", "box_above_eq", "box_add", "box_below", "box_below_eq",
    "box_center", "box_contain", "box_contain_pt", "box_contained", "box_distance", "box_div", "box_eq",
    "box_ge", "box_gt", "box_intersect", "box_le", "box_left", "box_lt", "box_mul", "box_overabove",
    "box_overbelow", "box_overlap", "box_overleft", "box_overright", "box_right", "box_same", "box_sub",
    "bpchar", "bpchar_larger", "bpchar_pattern_ge", "bpchar_pattern_gt", "bpchar_pattern_le",
    "bpchar_pattern_lt", "bpchar_smaller", "bpcharcmp", "bpchareq", "bpcharge", "bpchargt", "bpchariclike",
    "bpcharicnlike", "bpcharicregexeq", "bpcharicregexne", "bpcharin", "bpcharle", "bpcharlike", "bpcharlt",
    "bpcharne", "bpcharnlike", "bpcharout", "bpcharregexeq", "bpcharregexne", "broadcast",
    "btbpchar_pattern_cmp", "btequalimage", "btrim", "bttext_pattern_cmp", "btvarstrequalimage", "byteacat",
    "byteacmp", "byteaeq", "byteage", "byteagt", "byteain", "byteale", "bytealike", "bytealt", "byteane",
    "byteanlike", "byteaout", "byteasend", "cardinality", "casefold", "cash_cmp", "cash_div_cash",
    "cash_div_flt4", "cash_div_flt8", "cash_div_int2", "cash_div_int4", "cash_div_int8", "cash_eq",
    "cash_ge", "cash_gt", "cash_le", "cash_lt", "cash_mi", "cash_mul_flt4", "cash_mul_flt8",
    "cash_mul_int2", "cash_mul_int4", "cash_mul_int8", "cash_ne", "cash_pl", "cash_words", "cashlarger",
    "cashsmaller", "cbrt", "ceil", "ceiling", "center", "char", "char_length", "character_length", "chareq",
    "charge", "chargt", "charin", "charle", "charlt", "charne", "charout", "charsend", "chr", "cideq",
    "cidin", "cidout", "cidr", "cidsend", "circle", "circle_above", "circle_add_pt", "circle_below",
    "circle_center", "circle_contain", "circle_contain_pt", "circle_contained", "circle_distance",
    "circle_div_pt", "circle_eq", "circle_ge", "circle_gt", "circle_le", "circle_left", "circle_lt",
    "circle_mul_pt", "circle_ne", "circle_overabove", "circle_overbelow", "circle_overlap",
    "circle_overleft", "circle_overright", "circle_right", "circle_same", "circle_sub_pt", "close_ls",
    "close_lseg", "close_pb", "close_pl", "close_ps", "close_sb", "cos", "cosd", "cosh", "cot", "cotd",
    "crc32", "crc32c", "date_bin", "date_cmp", "date_cmp_timestamp", "date_eq", "date_eq_timestamp",
    "date_ge", "date_ge_timestamp", "date_gt", "date_gt_timestamp", "date_larger", "date_le",
    "date_le_timestamp", "date_lt", "date_lt_timestamp", "date_mi", "date_mi_interval", "date_mii",
    "date_ne", "date_ne_timestamp", "date_pl_interval", "date_pli", "date_smaller", "datemultirange",
    "daterange", "daterange_canonical", "daterange_subdiff", "datetime_pl", "datetimetz_pl", "dcbrt",
    "decode", "degrees", "dexp", "diagonal", "diameter", "dispell_init", "dispell_lexize", "dist_bp",
    "dist_bs", "dist_cpoint", "dist_cpoly", "dist_lp", "dist_ls", "dist_pathp", "dist_pb", "dist_pc",
    "dist_pl", "dist_polyc", "dist_polyp", "dist_ppath", "dist_ppoly", "dist_ps", "dist_sb", "dist_sl",
    "dist_sp", "div", "dlog1", "dlog10", "dpow", "dround", "dsimple_init", "dsimple_lexize", "dsqrt",
    "dsynonym_init", "dsynonym_lexize", "dtrunc", "elem_contained_by_multirange", "elem_contained_by_range",
    "encode", "enum_cmp", "enum_eq", "enum_ge", "enum_gt", "enum_larger", "enum_le", "enum_lt", "enum_ne",
    "enum_smaller", "erf", "erfc", "euc_cn_to_mic", "euc_cn_to_utf8", "euc_jis_2004_to_shift_jis_2004",
    "euc_jis_2004_to_utf8", "euc_jp_to_mic", "euc_jp_to_sjis", "euc_jp_to_utf8", "euc_kr_to_mic",
    "euc_kr_to_utf8", "euc_tw_to_big5", "euc_tw_to_mic", "euc_tw_to_utf8", "exp", "factorial", "family",
    "first_value", "float4", "float48div", "float48eq", "float48ge", "float48gt", "float48le", "float48lt",
    "float48mi", "float48mul", "float48ne", "float48pl", "float4abs", "float4div", "float4eq", "float4ge",
    "float4gt", "float4in", "float4larger", "float4le", "float4lt", "float4mi", "float4mul", "float4ne",
    "float4out", "float4pl", "float4send", "float4smaller", "float4um", "float4up", "float8", "float84div",
    "float84eq", "float84ge", "float84gt", "float84le", "float84lt", "float84mi", "float84mul", "float84ne",
    "float84pl", "float8_avg", "float8_corr", "float8_covar_pop", "float8_covar_samp", "float8_regr_avgx",
    "float8_regr_avgy", "float8_regr_intercept", "float8_regr_r2", "float8_regr_slope", "float8_regr_sxx",
    "float8_regr_sxy", "float8_regr_syy", "float8_stddev_pop", "float8_stddev_samp", "float8_var_pop",
    "float8_var_samp", "float8abs", "float8div", "float8eq", "float8ge", "float8gt", "float8in",
    "float8larger", "float8le", "float8lt", "float8mi", "float8mul", "float8ne", "float8out", "float8pl",
    "float8send", "float8smaller", "float8um", "float8up", "floor", "flt4_mul_cash", "flt8_mul_cash",
    "gamma", "gb18030_to_utf8", "gbk_to_utf8", "gcd", "generate_subscripts", "get_bit", "get_byte",
    "hashtext", "height", "host", "hostmask", "inet_gist_compress", "inet_gist_consistent",
    "inet_gist_fetch", "inet_gist_penalty", "inet_gist_picksplit", "inet_gist_same", "inet_gist_union",
    "inet_merge", "inet_same_family", "inet_spg_choose", "inet_spg_config", "inet_spg_inner_consistent",
    "inet_spg_leaf_consistent", "inet_spg_picksplit", "inetand", "inetmi", "inetmi_int8", "inetnot",
    "inetor", "inetpl", "initcap", "int2", "int24div", "int24eq", "int24ge", "int24gt", "int24le",
    "int24lt", "int24mi", "int24mul", "int24ne", "int24pl", "int28div", "int28eq", "int28ge", "int28gt",
    "int28le", "int28lt", "int28mi", "int28mul", "int28ne", "int28pl", "int2_mul_cash", "int2_sum",
    "int2abs", "int2and", "int2div", "int2eq", "int2ge", "int2gt", "int2in", "int2int4_sum", "int2larger",
    "int2le", "int2lt", "int2mi", "int2mod", "int2mul", "int2ne", "int2not", "int2or", "int2out", "int2pl",
    "int2send", "int2shl", "int2shr", "int2smaller", "int2um", "int2up", "int2vectorin", "int2vectorout",
    "int2vectorsend", "int2xor", "int4", "int42div", "int42eq", "int42ge", "int42gt", "int42le", "int42lt",
    "int42mi", "int42mul", "int42ne", "int42pl", "int48div", "int48eq", "int48ge", "int48gt", "int48le",
    "int48lt", "int48mi", "int48mul", "int48ne", "int48pl", "int4_mul_cash", "int4_sum", "int4abs",
    "int4and", "int4div", "int4eq", "int4ge", "int4gt", "int4in", "int4inc", "int4larger", "int4le",
    "int4lt", "int4mi", "int4mod", "int4mul", "int4multirange", "int4ne", "int4not", "int4or", "int4out",
    "int4pl", "int4range", "int4range_canonical", "int4range_subdiff", "int4send", "int4shl", "int4shr",
    "int4smaller", "int4um", "int4up", "int4xor", "int8", "int82div", "int82eq", "int82ge", "int82gt",
    "int82le", "int82lt", "int82mi", "int82mul", "int82ne", "int82pl", "int84div", "int84eq", "int84ge",
    "int84gt", "int84le", "int84lt", "int84mi", "int84mul", "int84ne", "int84pl", "int8_avg",
    "int8_mul_cash", "int8_sum", "int8abs", "int8and", "int8dec", "int8dec_any", "int8div", "int8eq",
    "int8ge", "int8gt", "int8in", "int8inc", "int8inc_any", "int8inc_float8_float8", "int8larger", "int8le",
    "int8lt", "int8mi", "int8mod", "int8mul", "int8multirange", "int8ne", "int8not", "int8or", "int8out",
    "int8pl", "int8pl_inet", "int8range", "int8range_canonical", "int8range_subdiff", "int8send", "int8shl",
    "int8shr", "int8smaller", "int8um", "int8up", "int8xor", "integer_pl_date", "inter_lb", "inter_sb",
    "inter_sl", "interval", "interval_avg", "interval_cmp", "interval_div", "interval_eq", "interval_ge",
    "interval_gt", "interval_hash", "interval_hash_extended", "interval_larger", "interval_le",
    "interval_lt", "interval_mi", "interval_mul", "interval_ne", "interval_pl", "interval_pl_date",
    "interval_pl_time", "interval_pl_timestamp", "interval_pl_timetz", "interval_smaller", "interval_um",
    "is_normalized", "isclosed", "isempty", "isfinite", "ishorizontal", "iso8859_1_to_utf8",
    "iso8859_to_utf8", "iso_to_koi8r", "iso_to_mic", "iso_to_win1251", "iso_to_win866", "isopen",
    "isparallel", "isperp", "isvertical", "johab_to_utf8", "json_array_element", "json_array_element_text",
    "json_array_elements", "json_array_elements_text", "json_array_length", "json_each", "json_each_text",
    "json_extract_path", "json_extract_path_text", "json_object", "json_object_field",
    "json_object_field_text", "json_object_keys", "json_strip_nulls", "json_typeof", "jsonb_array_element",
    "jsonb_array_element_text", "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_array_length",
    "jsonb_cmp", "jsonb_concat", "jsonb_contained", "jsonb_contains", "jsonb_delete", "jsonb_delete_path",
    "jsonb_each", "jsonb_each_text", "jsonb_eq", "jsonb_exists", "jsonb_exists_all", "jsonb_exists_any",
    "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_ge", "jsonb_gt", "jsonb_hash",
    "jsonb_hash_extended", "jsonb_insert", "jsonb_le", "jsonb_lt", "jsonb_ne", "jsonb_object",
    "jsonb_object_field", "jsonb_object_field_text", "jsonb_object_keys", "jsonb_path_exists",
    "jsonb_path_exists_opr", "jsonb_path_match", "jsonb_path_match_opr", "jsonb_path_query",
    "jsonb_path_query_array", "jsonb_path_query_first", "jsonb_pretty", "jsonb_set", "jsonb_set_lax",
    "jsonb_strip_nulls", "jsonb_typeof", "justify_days", "justify_hours", "justify_interval",
    "koi8r_to_iso", "koi8r_to_mic", "koi8r_to_utf8", "koi8r_to_win1251", "koi8r_to_win866", "koi8u_to_utf8",
    "lag", "last_value", "latin1_to_mic", "latin2_to_mic", "latin2_to_win1250", "latin3_to_mic",
    "latin4_to_mic", "lcm", "lead", "left", "lgamma", "like", "like_escape", "line", "line_distance",
    "line_eq", "line_horizontal", "line_interpt", "line_intersect", "line_parallel", "line_perp",
    "line_vertical", "ln", "log", "log10", "lower", "lower_inc", "lower_inf", "lpad", "lseg", "lseg_center",
    "lseg_distance", "lseg_eq", "lseg_ge", "lseg_gt", "lseg_horizontal", "lseg_interpt", "lseg_intersect",
    "lseg_le", "lseg_length", "lseg_lt", "lseg_ne", "lseg_parallel", "lseg_perp", "lseg_vertical", "ltrim",
    "macaddr", "macaddr8", "macaddr8_and", "macaddr8_cmp", "macaddr8_eq", "macaddr8_ge", "macaddr8_gt",
    "macaddr8_le", "macaddr8_lt", "macaddr8_ne", "macaddr8_not", "macaddr8_or", "macaddr8_set7bit",
    "macaddr_and", "macaddr_cmp", "macaddr_eq", "macaddr_ge", "macaddr_gt", "macaddr_le", "macaddr_lt",
    "macaddr_ne", "macaddr_not", "macaddr_or", "make_date", "make_interval", "make_time", "make_timestamp",
    "makeaclitem", "masklen", "md5", "mic_to_big5", "mic_to_euc_cn", "mic_to_euc_jp", "mic_to_euc_kr",
    "mic_to_euc_tw", "mic_to_iso", "mic_to_koi8r", "mic_to_latin1", "mic_to_latin2", "mic_to_latin3",
    "mic_to_latin4", "mic_to_sjis", "mic_to_win1250", "mic_to_win1251", "mic_to_win866", "min_scale", "mod",
    "mul_d_interval", "multirange", "multirange_adjacent_multirange", "multirange_adjacent_range",
    "multirange_after_multirange", "multirange_after_range", "multirange_before_multirange",
    "multirange_before_range", "multirange_cmp", "multirange_contained_by_multirange",
    "multirange_contained_by_range", "multirange_contains_elem", "multirange_contains_multirange",
    "multirange_contains_range", "multirange_eq", "multirange_ge", "multirange_gt", "multirange_intersect",
    "multirange_le", "multirange_lt", "multirange_minus", "multirange_ne", "multirange_overlaps_multirange",
    "multirange_overlaps_range", "multirange_overleft_multirange", "multirange_overleft_range",
    "multirange_overright_multirange", "multirange_overright_range", "multirange_union", "name",
    "nameconcatoid", "nameeq", "nameeqtext", "namege", "namegetext", "namegt", "namegttext", "nameiclike",
    "nameicnlike", "nameicregexeq", "nameicregexne", "namein", "namele", "nameletext", "namelike", "namelt",
    "namelttext", "namene", "namenetext", "namenlike", "nameout", "nameregexeq", "nameregexne", "netmask",
    "network", "network_cmp", "network_eq", "network_ge", "network_gt", "network_larger", "network_le",
    "network_lt", "network_ne", "network_overlap", "network_smaller", "network_sub", "network_subeq",
    "network_sup", "network_supeq", "normalize", "notlike", "npoints", "nth_value", "ntile", "num_nonnulls",
    "num_nulls", "numeric_abs", "numeric_add", "numeric_avg", "numeric_cmp", "numeric_div",
    "numeric_div_trunc", "numeric_eq", "numeric_exp", "numeric_ge", "numeric_gt", "numeric_inc",
    "numeric_larger", "numeric_le", "numeric_ln", "numeric_log", "numeric_lt", "numeric_mod", "numeric_mul",
    "numeric_ne", "numeric_pl_pg_lsn", "numeric_poly_avg", "numeric_poly_stddev_pop",
    "numeric_poly_stddev_samp", "numeric_poly_sum", "numeric_poly_var_pop", "numeric_poly_var_samp",
    "numeric_power", "numeric_smaller", "numeric_sqrt", "numeric_stddev_pop", "numeric_stddev_samp",
    "numeric_sub", "numeric_sum", "numeric_uminus", "numeric_uplus", "numeric_var_pop", "numeric_var_samp",
    "nummultirange", "numnode", "numrange", "numrange_subdiff", "octet_length", "oid", "oideq", "oidge",
    "oidgt", "oidin", "oidlarger", "oidle", "oidlt", "oidne", "oidout", "oidsend", "oidsmaller",
    "oidvectoreq", "oidvectorge", "oidvectorgt", "oidvectorin", "oidvectorle", "oidvectorlt", "oidvectorne",
    "oidvectorout", "oidvectorsend", "on_pb", "on_pl", "on_ppath", "on_ps", "on_sb", "on_sl",
    "ordered_set_transition", "ordered_set_transition_multi", "overlay", "parse_ident", "path", "path_add",
    "path_add_pt", "path_contain_pt", "path_distance", "path_div_pt", "path_inter", "path_length",
    "path_mul_pt", "path_n_eq", "path_n_ge", "path_n_gt", "path_n_le", "path_n_lt", "path_npoints",
    "path_sub_pt", "pclose", "pg_size_bytes", "pg_size_pretty", "pi", "point", "point_above", "point_add",
    "point_below", "point_distance", "point_div", "point_eq", "point_horiz", "point_left", "point_mul",
    "point_ne", "point_right", "point_sub", "point_vert", "poly_above", "poly_below", "poly_center",
    "poly_contain", "poly_contain_pt", "poly_contained", "poly_distance", "poly_left", "poly_npoints",
    "poly_overabove", "poly_overbelow", "poly_overlap", "poly_overleft", "poly_overright", "poly_right",
    "poly_same", "polygon", "popen", "position", "postgresql_fdw_validator", "pow", "power", "prsd_end",
    "prsd_headline", "prsd_lextype", "prsd_nexttoken", "prsd_start", "pt_contained_circle",
    "pt_contained_poly", "querytree", "quote_ident", "radians", "radius", "range_adjacent",
    "range_adjacent_multirange", "range_after", "range_after_multirange", "range_before",
    "range_before_multirange", "range_cmp", "range_contained_by", "range_contained_by_multirange",
    "range_contains", "range_contains_elem", "range_contains_multirange", "range_eq", "range_ge",
    "range_gt", "range_intersect", "range_le", "range_lt", "range_merge", "range_minus", "range_ne",
    "range_overlaps", "range_overlaps_multirange", "range_overleft", "range_overleft_multirange",
    "range_overright", "range_overright_multirange", "range_union", "record_eq", "record_ge", "record_gt",
    "record_image_eq", "record_image_ge", "record_image_gt", "record_image_le", "record_image_lt",
    "record_image_ne", "record_le", "record_lt", "record_ne", "regexp_count", "regexp_instr", "regexp_like",
    "regexp_match", "regexp_matches", "regexp_replace", "regexp_split_to_array", "regexp_split_to_table",
    "regexp_substr", "repeat", "replace", "reverse", "right", "round", "row_number", "rpad", "rtrim",
    "satisfies_hash_partition", "scale", "set_bit", "set_byte", "set_masklen", "setweight", "sha224",
    "sha256", "sha384", "sha512", "shift_jis_2004_to_euc_jis_2004", "shift_jis_2004_to_utf8", "sign",
    "similar_escape", "similar_to_escape", "sin", "sind", "sinh", "sjis_to_euc_jp", "sjis_to_mic",
    "sjis_to_utf8", "slope", "split_part", "sqrt", "starts_with", "string_to_array", "string_to_table",
    "strip", "strpos", "substr", "substring", "tan", "tand", "tanh", "text", "text_ge", "text_gt",
    "text_larger", "text_le", "text_lt", "text_pattern_ge", "text_pattern_gt", "text_pattern_le",
    "text_pattern_lt", "text_smaller", "textcat", "texteq", "texteqname", "textgename", "textgtname",
    "texticlike", "texticnlike", "texticregexeq", "texticregexne", "textin", "textlen", "textlename",
    "textlike", "textltname", "textne", "textnename", "textnlike", "textout", "textregexeq", "textregexne",
    "thesaurus_init", "thesaurus_lexize", "tideq", "tidge", "tidgt", "tidin", "tidlarger", "tidle", "tidlt",
    "tidne", "tidout", "tidsend", "tidsmaller", "time_cmp", "time_eq", "time_ge", "time_gt", "time_hash",
    "time_hash_extended", "time_larger", "time_le", "time_lt", "time_mi_interval", "time_mi_time",
    "time_ne", "time_pl_interval", "time_smaller", "timedate_pl", "timestamp_cmp", "timestamp_cmp_date",
    "timestamp_eq", "timestamp_eq_date", "timestamp_ge", "timestamp_ge_date", "timestamp_gt",
    "timestamp_gt_date", "timestamp_hash", "timestamp_hash_extended", "timestamp_larger", "timestamp_le",
    "timestamp_le_date", "timestamp_lt", "timestamp_lt_date", "timestamp_mi", "timestamp_mi_interval",
    "timestamp_ne", "timestamp_ne_date", "timestamp_pl_interval", "timestamp_smaller", "timestamptz_cmp",
    "timestamptz_eq", "timestamptz_ge", "timestamptz_gt", "timestamptz_larger", "timestamptz_le",
    "timestamptz_lt", "timestamptz_mi", "timestamptz_ne", "timestamptz_smaller", "timetz_cmp", "timetz_eq",
    "timetz_ge", "timetz_gt", "timetz_hash", "timetz_hash_extended", "timetz_larger", "timetz_le",
    "timetz_lt", "timetz_mi_interval", "timetz_ne", "timetz_pl_interval", "timetz_smaller", "timetzdate_pl",
    "to_ascii", "to_bin", "to_hex", "to_oct", "translate", "trim_array", "trim_scale", "trunc", "ts_delete",
    "ts_filter", "ts_lexize", "ts_match_qv", "ts_match_vq", "ts_rank", "ts_rank_cd", "tsmultirange",
    "tsq_mcontained", "tsq_mcontains", "tsquery_and", "tsquery_cmp", "tsquery_eq", "tsquery_ge",
    "tsquery_gt", "tsquery_le", "tsquery_lt", "tsquery_ne", "tsquery_not", "tsquery_or", "tsquery_phrase",
    "tsqueryin", "tsqueryout", "tsquerysend", "tsrange", "tsrange_subdiff", "tstzmultirange", "tstzrange",
    "tstzrange_subdiff", "tsvector_cmp", "tsvector_concat", "tsvector_eq", "tsvector_ge", "tsvector_gt",
    "tsvector_le", "tsvector_lt", "tsvector_ne", "tsvector_to_array", "tsvectorin", "tsvectorout",
    "tsvectorsend", "uhc_to_utf8", "unicode_assigned", "unistr", "unknownin", "unknownout", "unknownsend",
    "unnest", "upper", "upper_inc", "upper_inf", "utf8_to_big5", "utf8_to_euc_cn", "utf8_to_euc_jis_2004",
    "utf8_to_euc_jp", "utf8_to_euc_kr", "utf8_to_euc_tw", "utf8_to_gb18030", "utf8_to_gbk",
    "utf8_to_iso8859", "utf8_to_iso8859_1", "utf8_to_johab", "utf8_to_koi8r", "utf8_to_koi8u",
    "utf8_to_shift_jis_2004", "utf8_to_sjis", "utf8_to_uhc", "utf8_to_win", "uuid_cmp", "uuid_eq",
    "uuid_extract_timestamp", "uuid_extract_version", "uuid_ge", "uuid_gt", "uuid_hash",
    "uuid_hash_extended", "uuid_le", "uuid_lt", "uuid_ne", "varbit", "varbitcmp", "varbiteq", "varbitge",
    "varbitgt", "varbitle", "varbitlt", "varbitne", "varchar", "varcharin", "varcharout", "width",
    "width_bucket", "win1250_to_latin2", "win1250_to_mic", "win1251_to_iso", "win1251_to_koi8r",
    "win1251_to_mic", "win1251_to_win866", "win866_to_iso", "win866_to_koi8r", "win866_to_mic",
    "win866_to_win1251", "win_to_utf8", "xid", "xid8_larger", "xid8_smaller", "xid8cmp", "xid8eq", "xid8ge",
    "xid8gt", "xid8in", "xid8le", "xid8lt", "xid8ne", "xid8out", "xid8send", "xideq", "xideqint4", "xidin",
    "xidneq", "xidneqint4", "xidout", "xidsend", "xml_is_well_formed_content",
    "xml_is_well_formed_document", "xmlcomment", "xmlconcat2", "xmlexists", "xmltext", "xmlvalidate",
    "xpath", "xpath_exists",
];

/// Every overload is immutable or stable.
#[rustfmt::skip]
const STABLE: &[&str] = &[
    "aclexplode", "aclitemin", "aclitemout", "age", "anytextcat", "array_to_json", "array_to_string",
    "bpcharsend", "concat", "concat_ws", "convert", "convert_from", "convert_to", "current_database",
    "current_schema", "current_schemas", "current_user", "date", "date_add", "date_cmp_timestamptz",
    "date_eq_timestamptz", "date_ge_timestamptz", "date_gt_timestamptz", "date_le_timestamptz",
    "date_lt_timestamptz", "date_ne_timestamptz", "date_part", "date_subtract", "date_trunc", "enum_first",
    "enum_last", "enum_range", "extract", "format", "generate_series", "get_current_ts_config",
    "getdatabaseencoding", "in_range", "interval_pl_timestamptz", "json_build_array", "json_build_object",
    "json_populate_record", "json_populate_recordset", "json_to_record", "json_to_recordset",
    "json_to_tsvector", "jsonb_build_array", "jsonb_build_object", "jsonb_path_exists_tz",
    "jsonb_path_match_tz", "jsonb_path_query_array_tz", "jsonb_path_query_first_tz", "jsonb_path_query_tz",
    "jsonb_populate_record", "jsonb_populate_recordset", "jsonb_to_record", "jsonb_to_recordset",
    "jsonb_to_tsvector", "length", "make_timestamptz", "money", "namesend", "now", "numeric", "overlaps",
    "pg_client_encoding", "pg_column_size", "pg_typeof", "phraseto_tsquery", "plainto_tsquery",
    "quote_literal", "quote_nullable", "row_to_json", "session_user", "statement_timestamp", "textanycat",
    "textsend", "time", "timestamp", "timestamp_cmp_timestamptz", "timestamp_eq_timestamptz",
    "timestamp_ge_timestamptz", "timestamp_gt_timestamptz", "timestamp_le_timestamptz",
    "timestamp_lt_timestamptz", "timestamp_ne_timestamptz", "timestamptz", "timestamptz_cmp_date",
    "timestamptz_cmp_timestamp", "timestamptz_eq_date", "timestamptz_eq_timestamp", "timestamptz_ge_date",
    "timestamptz_ge_timestamp", "timestamptz_gt_date", "timestamptz_gt_timestamp", "timestamptz_le_date",
    "timestamptz_le_timestamp", "timestamptz_lt_date", "timestamptz_lt_timestamp",
    "timestamptz_mi_interval", "timestamptz_ne_date", "timestamptz_ne_timestamp", "timestamptz_pl_interval",
    "timetz", "timezone", "to_char", "to_date", "to_json", "to_jsonb", "to_number", "to_timestamp",
    "to_tsquery", "to_tsvector", "transaction_timestamp", "ts_debug", "ts_headline", "ts_match_tq",
    "ts_match_tt", "ts_parse", "ts_token_type", "varcharsend", "version", "websearch_to_tsquery", "xml",
    "xml_is_well_formed",
];

/// Volatile, and harmless.
#[rustfmt::skip]
const VOLATILE: &[&str] = &[
    "array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid", "random", "random_normal",
    "timeofday", "uuidv4", "uuidv7",
];

/// Aggregates: one row from many, so not to be answered by several shards each.
#[rustfmt::skip]
const AGGREGATES: &[&str] = &[
    "any_value", "array_agg", "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count",
    "covar_pop", "covar_samp", "cume_dist", "dense_rank", "every", "json_agg", "json_agg_strict",
    "json_object_agg", "json_object_agg_strict", "json_object_agg_unique", "json_object_agg_unique_strict",
    "jsonb_agg", "jsonb_agg_strict", "jsonb_object_agg", "jsonb_object_agg_strict",
    "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "max", "min", "mode", "percent_rank",
    "percentile_cont", "percentile_disc", "range_agg", "range_intersect_agg", "rank", "regr_avgx",
    "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy",
    "regr_syy", "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "var_pop", "var_samp",
    "variance", "xmlagg",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_disjoint() {
        let lists = [IMMUTABLE, STABLE, VOLATILE, AGGREGATES];
        assert!(lists.iter().all(|it| it.is_sorted()));
        let mut all = lists.concat();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before);
    }

    #[test]
    fn what_writes_or_tells_the_server_is_not_listed() {
        for name in [
            "nextval",
            "currval",
            "setval",
            "pg_advisory_lock",
            "pg_notify",
            "set_config",
            "pg_backend_pid",
            "inet_server_addr",
            "txid_current",
            "pg_is_in_recovery",
            "lo_creat",
            "query_to_xml",
            "dblink",
        ] {
            assert_eq!(built_in(name), None, "{name}");
        }
        let count = BuiltIn { volatility: Volatility::Immutable, aggregate: true };
        assert_eq!(built_in("count"), Some(count));
        assert_eq!(built_in("now").map(|it| it.volatility), Some(Volatility::Stable));
        assert_eq!(built_in("lower").map(|it| it.volatility), Some(Volatility::Immutable));
    }
}
