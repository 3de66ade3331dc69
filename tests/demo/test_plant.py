import numpy as np
from denoised.demo.plant import TAGS, Plant


def table(rows, what):
    return np.array([getattr(r, what) for r in rows], float)


def test_the_same_seed_gives_the_same_plant_and_another_seed_another():
    assert Plant(5).rows(50) == Plant(5).rows(50)
    assert Plant(5).rows(50) != Plant(6).rows(50)


def test_rows_go_on_where_the_last_ones_ended():
    plant = Plant(5)
    assert plant.rows(20) + plant.rows(30) == Plant(5).rows(50)


def test_times_are_one_period_apart():
    assert [r.t_s for r in Plant(0, period_s=0.5).rows(4)] == [0.0, 0.5, 1.0, 1.5]


def test_sensors_stay_in_the_range_of_a_real_press():
    truth = table(Plant(1).rows(2000), "truth")
    for tag, low, high in zip(TAGS, (5, 0, 0, 35, 18, 0), (60, 280, 60, 60, 45, 8)):
        column = truth[:, TAGS.index(tag)]
        assert low <= column.min() and column.max() <= high, tag


def test_sensors_depend_on_each_other():
    correlation = np.corrcoef(table(Plant(2).rows(1500), "truth").T)
    assert correlation[TAGS.index("motor_current_a"), TAGS.index("pressure_bar")] > 0.7
    assert correlation[TAGS.index("flow_lpm"), TAGS.index("vibration_mm_s")] > 0.5


def test_what_is_delivered_is_the_truth_or_nothing():
    for row in Plant(3).rows(300):
        assert all(got is None or got == true for got, true in zip(row.delivered, row.truth))


def test_samples_are_lost_singly_in_blocks_and_all_together_within_a_minute():
    lost = np.isnan(table(Plant(4).rows(300), "delivered"))
    assert lost.all(1).any()
    runs = [len(run) for column in lost.T for run in "".join("x" if v else " " for v in column).split()]
    assert 1 in runs and max(runs) >= 8
    assert 0.05 < lost.mean() < 0.35
