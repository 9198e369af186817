"""A folder of captioned pictures: read, analysed, augmented."""
