from kseq.training import plot_history
from kseq.training.history import read_history


def test_the_curves_are_the_columns(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,accuracy,loss,val_accuracy,val_loss,seconds\n1,0.5,1.5,0.4,1.6,3\n2,0.7,1.1,0.6,1.2,3\n")
    assert read_history(path)["val_loss"] == [1.6, 1.2]
    axes = plot_history(path).axes
    assert [axis.get_ylabel() for axis in axes] == ["accuracy", "loss"]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes[1].lines}
    assert curves == {"training": [1.5, 1.1], "validation": [1.6, 1.2]}
