mod spelling;
