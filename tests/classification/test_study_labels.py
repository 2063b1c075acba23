from classification.study_labels import baseline_of, in_full, labels_of, table_of

A = {"model.name": "x", "model.norm": "batch", "optim.lr": 0.1, "model.options.dense": [64]}
B = A | {"model.norm": "none"}
C = A | {"model.options.dense": [512, 256], "optim.lr": None}


def test_a_label_says_where_a_row_differs_from_the_baseline():
    assert labels_of([A, B, C], (), A) == ["baseline", "norm=none", "lr=null, dense=[512, 256]"]


def test_without_a_baseline_a_label_says_all_that_differs():
    labels = labels_of([A, B])
    assert labels == ["norm=batch", "norm=none"]
    assert labels_of([A, C]) == ["lr=0.1, dense=[64]", "lr=null, dense=[512, 256]"]


def test_names_with_the_same_end_are_told_in_full():
    rows = [{"optim.name": "sgd", "optim.options.name": 1}, {"optim.name": "adam"}]
    assert labels_of(rows)[0] == "optim=sgd, options=1"
    rows = [{"a.size": 1, "b.size": 1}, {"a.size": 2, "b.size": 2}]
    assert labels_of(rows) == ["a.size=1, b.size=1", "a.size=2, b.size=2"]


def test_a_setting_that_another_net_does_not_have_is_not_spoken_of():
    other = {"model.name": "y", "model.norm": "batch", "optim.lr": 0.1}
    lacking = {name: value for name, value in A.items() if name != "model.options.dense"}
    labels = labels_of([A, other, lacking], (), A)
    assert labels == ["baseline", "model=y", "dense=default"]


def test_what_stands_in_the_heading_is_left_out():
    rows = [A, B | {"optim.lr": 0.2}]
    assert labels_of(rows, ["optim.lr"]) == ["norm=batch", "norm=none"]
    assert table_of(A, ["optim.lr", "model.norm"]) == "optim.lr 0.1, model.norm batch"


def test_a_baseline_is_one_row_or_none():
    assert baseline_of([A, B], {"model.norm": "none"}) is B
    assert baseline_of([A, B], {"optim.lr": 0.1}) is None
    assert baseline_of([A, B], {}) is None
    assert in_full(B, [A, B]) == "model.norm none"


def test_labels_that_would_be_the_same_tell_all_that_differs():
    base = A | {"model.name": "y"}
    lacking = {name: value for name, value in A.items() if name != "model.options.dense"}
    null = lacking | {"model.options.dense": None}
    assert labels_of([base, A, lacking, null], (), base) == [
        "baseline",
        "model=x, dense=[64]",
        "model=x, dense=default",
        "model=x, dense=null",
    ]
    assert labels_of([null, lacking]) == ["dense=null", "dense=default"]
    assert labels_of([lacking, null], (), lacking) == ["baseline", "dense=null"]
