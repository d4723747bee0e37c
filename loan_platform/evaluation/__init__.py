"""What is measured of a version beyond its metrics, and the sections of its card.

Here: pure measurements of a trained model, and what each section of the card says. Not here:
fitting (`training`), the page the sections stand on (`training.card`), keeping it (`registry`).
"""
