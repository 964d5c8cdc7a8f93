"""The one mixing function behind random draws and MinHash: integers only, so equal everywhere."""

import numpy as np
import numpy.typing as npt


def mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea and Flood, 2014), element by element.

    Every bit of the input moves every bit of the output, and no two inputs share an output.
    """
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
