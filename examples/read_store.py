"""Read a run store as data frames: runs, epochs, test images and tables.

python examples/distill_a_run.py    # makes a store
python examples/read_store.py
"""

import reports

STORE = "demo/examples/store"


def main() -> None:
    store = reports.load(STORE)
    runs = store.runs
    print(runs[["run_id", "method", "loss", "loss.sigma", "state", "abs_rel", "device_seconds"]].to_string(index=False))

    done = runs[runs.state == "done"]
    best = done.loc[done.abs_rel.idxmin()]
    print(f"\nbest run: {best.run_id}, {best.method}, abs_rel {best.abs_rel:.3f}")

    epochs = store.epochs[store.epochs.run_id == best.run_id]
    print(epochs[["epoch", "loss", "lr", "abs_rel"]].to_string(index=False))

    images = store.images[store.images.run_id == best.run_id]
    worst = images.sort_values("abs_rel", ascending=False).head(3)
    print("\nits worst test images:")
    print(worst[["image", "abs_rel", "rmse", "n_valid"]].to_string(index=False))


if __name__ == "__main__":
    main()
